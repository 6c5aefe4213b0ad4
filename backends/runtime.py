"""Runs a compiled library: nothing but TVM's small runtime and NumPy.

`tvm_ffi` imports torch if it finds it, to share memory with it. A deployed artifact shall not pay
for that, so torch is hidden from that one import.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import ArtifactError, TargetError
from planish.ir.requirements import missing_package

from .packing import aligned_bytes

# TVM's number of the mode in which a pool's threads share a list of cores.
_SHARED_CORES = -3
_lock = threading.Lock()


class _Pool(threading.local):
    """What the calling thread's pool is set to; TVM keeps a pool for each calling thread.

    Attributes:
        threads: Threads that it uses now, 0 before the first call.
        lost: Whether a fork has left its threads in the parent process.
    """

    threads = 0
    lost = False


_pool = _Pool()
# Threads of the artifact that has most: a pool gets its size when its thread first calls.
_most_threads = 1


def _after_fork() -> None:
    _pool.lost = _pool.threads > 1
    _pool.threads = 0


os.register_at_fork(after_in_child=_after_fork)


def _make_room(threads: int) -> None:
    """Remember that an artifact of this many threads is loaded."""
    global _most_threads
    with _lock:
        _most_threads = max(_most_threads, threads)


def _set_pool(configure: Callable[..., Any], threads: int) -> None:
    """Make the calling thread's pool use this many threads, its own among them.

    A list of cores says how many threads there may be: without it TVM takes half of what the
    machine has, which it believes to be hyper-threads. No thread is bound to those cores (see
    `load_thread_pool`). A pool can't grow, so the first call makes room for the largest artifact.
    In a forked process the pool's threads are gone and waiting for them would never end: the
    thread that forked goes on alone.
    """
    wanted = 1 if _pool.lost else threads
    if _pool.threads == wanted:
        return
    if _pool.threads == 0 and wanted < _most_threads:
        configure(_SHARED_CORES, _most_threads, _cores(_most_threads))
    configure(_SHARED_CORES, wanted, _cores(wanted))
    _pool.threads = wanted


def use_threads(threads: int) -> None:
    """Give the calling thread's pool this many threads, for kernels that no `Library` calls.

    Raises:
        TargetError: TVM isn't installed.
    """
    configure = load_thread_pool()
    _make_room(threads)
    _set_pool(configure, threads)


def _cores(count: int) -> list[str]:
    return [str(core) for core in range(count)]


def load_ffi() -> Any:
    """Import tvm_ffi without importing torch.

    Raises:
        TargetError: It isn't installed.
    """
    try:
        with _lock:
            return _import_ffi()
    except ModuleNotFoundError as error:
        found = missing_package(error, TargetError)
        if found is None:
            raise
        raise found from error


def _import_ffi() -> Any:
    if "tvm_ffi" in sys.modules or "torch" in sys.modules:
        return importlib.import_module("tvm_ffi")
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("tvm_ffi")
    finally:
        del sys.modules["torch"]


def load_thread_pool() -> Callable[..., Any]:
    """Load TVM's runtime library, which has the thread pool; return the pool's configuration call.

    Raises:
        TargetError: TVM isn't installed.
    """
    found = importlib.util.find_spec("tvm")
    folders = list(found.submodule_search_locations or []) if found else []
    libraries = [Path(folder) / "lib" / "libtvm_runtime.so" for folder in folders]
    existing = [path for path in libraries if path.is_file()]
    if not existing:
        raise TargetError(
            "an artifact with several threads or float operators needs TVM's runtime library",
            cure="pip install apache-tvm, or compile with threads=1",
        )
    ffi = load_ffi()
    # TVM would bind threads to cores, the caller's thread too, and torch's after it.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    # Helpers wait for work in a loop that yields, by default 300,000 times: a third of a second
    # after each call, and on busy cores half a minute at the end of a process.
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "10000")
    ctypes.CDLL(str(existing[0]), mode=ctypes.RTLD_GLOBAL)
    return ffi.get_global_func("runtime.config_threadpool")


class Library:
    """An entry function with its parameter memory and workspaces.

    Calls from several Python threads are safe: each takes a workspace of its own.
    """

    def __init__(
        self,
        content: bytes,
        entry: str,
        parameters: NDArray[np.uint8],
        workspace_bytes: int,
        threads: int,
        needs_runtime: bool,
    ) -> None:
        """Load the library.

        Args:
            content: Bytes of the shared library.
            entry: Name of the entry function.
            parameters: The packed parameter memory.
            workspace_bytes: What each call needs.
            threads: Threads that a call may use.
            needs_runtime: Whether the library calls TVM's runtime (threads, allocation).

        Raises:
            ArtifactError: The library can't be loaded.
        """
        ffi = load_ffi()
        self._configure = load_thread_pool() if needs_runtime else None
        _make_room(threads)
        self._threads = threads
        self._module, self.entry = _open(ffi, content, entry)
        self._view = ffi.from_dlpack
        self._parameter_memory = parameters
        self._parameters = ffi.from_dlpack(parameters)
        self._workspace_bytes = workspace_bytes
        self._free: list[Any] = []

    def _workspace(self) -> Any:
        try:
            return self._free.pop()
        except IndexError:
            return self._view(aligned_bytes(self._workspace_bytes))

    def prepare(self) -> None:
        """Set up the calling thread's pool; `run` does it, who calls `entry` itself must."""
        if self._configure is not None:
            _set_pool(self._configure, self._threads)

    def run(self, arrays: list[NDArray[Any]]) -> None:
        """Call the entry on the inputs, then the outputs, all contiguous."""
        self.prepare()
        view = self._view
        workspace = self._workspace()
        try:
            status = self.entry(*[view(array) for array in arrays], self._parameters, workspace)
        finally:
            self._free.append(workspace)
        if status:
            raise ArtifactError(f"a parallel kernel failed with status {status}")

    def tensors(self, arrays: list[NDArray[Any]]) -> list[Any]:
        """Return the arguments of `entry` for these arrays, to call it in a loop."""
        return [*map(self._view, arrays), self._parameters, self._workspace()]


def _open(ffi: Any, content: bytes, entry: str) -> tuple[Any, Any]:
    """Map a library's bytes into memory and find its entry."""
    # The file may go once it is mapped: the mapping keeps it.
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        path = Path(folder) / "library.so"
        path.write_bytes(content)
        try:
            module = ffi.load_module(str(path))
            return module, module[entry]
        except (RuntimeError, AttributeError) as error:
            raise ArtifactError(
                f"the artifact's library can't be loaded: {str(error).splitlines()[-1]}",
                cure="compile the model anew on this system",
            ) from error
