"""A session on a device: what it is, and memory and libraries there."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import OptionError, TargetError

from ..matching import Processor
from ..runtime import load_ffi
from .address import address_text, is_address, require_server

# What planish's own server registers; see `server`.
DESCRIBE, USE_THREADS = "planish.describe_device", "planish.use_threads"
# Seconds for a session to begin once a server answered: an emulated one is slow.
START = 60.0
_GONE = "look at the server's output; it may have been stopped, or lent to another client"


class Device:
    """A session with an RPC server; use it in a `with` statement, since a server has one at a time.

    What it raises is TVM's RuntimeError, unless a method says otherwise.

    Attributes:
        address: "host:port".
    """

    def __init__(self, address: tuple[str, int], key: str = "", seconds: int = 0) -> None:
        """Begin a session.

        Args:
            address: Host and port of the server.
            key: The word that it lets a client in by; none for a server that no tracker lends.
            seconds: After so long the server ends the session; 0 is never.

        Raises:
            OptionError: The address is not (host, port).
            TargetError: Nobody answers there, or no RPC server.
        """
        if not is_address(address):
            raise OptionError(
                f"a device's address is (host, port), not {address!r}",
                cure='write Device(("127.0.0.1", 9090))',
            )
        self.address = address_text(address)
        if not key:  # a tracker knows its servers, and they are lent to one client
            require_server(address)
        load_ffi()  # before TVM, which would import torch with it
        self._session: Any = self._begin(address, key, seconds)
        self._cpu = self._session.cpu(0)
        self._loaded = 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _begin(self, address: tuple[str, int], key: str, seconds: int) -> Any:
        """Return TVM's session.

        TVM waits for ever for a server that falls silent, and has no limit to give. So it waits in
        a thread of its own, which is left to itself if nothing comes.
        """
        from tvm import rpc

        sessions: list[Any] = []
        errors: list[Exception] = []

        def connect() -> None:
            try:
                sessions.append(rpc.connect(*address, key, seconds))
            except (OSError, RuntimeError, ValueError) as error:
                errors.append(error)

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(START)
        if sessions:
            return sessions[0]
        if thread.is_alive():
            what = f"the server began no session within {START:g} s"
            raise TargetError(what, where=self.address, cure=_GONE)
        cause = errors[0] if errors else None
        raise TargetError("the server began no session", where=self.address, cure=_GONE) from cause

    def describe(self) -> Processor | None:
        """Return the device's processor; None where the server doesn't tell, as TVM's own.

        Raises:
            TargetError: The session broke.
        """
        try:
            answer = self._session.get_function(DESCRIBE)()
        except (AttributeError, ValueError):
            return None
        except (RuntimeError, OSError) as error:
            raise TargetError(
                "the session with the device ended before it said what it is",
                where=self.address,
                cure=_GONE,
            ) from error
        told = json.loads(str(answer))
        flags = frozenset(told["cpu_flags"])
        return Processor(told["machine"], flags, "the device", told.get("count"))

    def load(self, library: bytes | Path, threads: int) -> Any:
        """Upload a library and load it there; return TVM's module.

        Args:
            library: Its bytes, or its file.
            threads: Threads that its kernels may use.
        """
        self._loaded += 1
        # A loaded file must stay as it is, so each gets a name of its own.
        name = f"kernel{self._loaded}.so"
        content = library if isinstance(library, bytes) else library.read_bytes()
        self._session.upload(bytearray(content), name)
        module = self._session.load_module(name)
        if threads > 1:
            self._use_threads(threads)
        return module

    def _use_threads(self, threads: int) -> None:
        try:
            self._session.get_function(USE_THREADS)(threads)
        except (AttributeError, ValueError):
            # TVM's own server: it takes at most half of the processors, or TVM_NUM_THREADS.
            self._session.get_function("runtime.config_threadpool")(1, threads)

    def tensor(self, array: NDArray[Any]) -> Any:
        """Return a copy of an array in the device's memory."""
        from tvm import runtime

        return runtime.tensor(array, device=self._cpu)

    def empty(self, shape: tuple[int, ...], dtype: str | np.dtype[Any]) -> Any:
        """Return memory of the device that holds anything."""
        from tvm import runtime

        return runtime.empty(shape, str(dtype), device=self._cpu)

    def clock(self, module: Any, entry: str, calls: int, times: int = 1) -> Any:
        """Return what times an entry on the device: its call gives seconds a call, one each time.

        Args:
            module: From `load`.
            entry: The function.
            calls: How many calls in a row.
            times: How often that is timed.
        """
        timer = module.time_evaluator(entry, self._cpu, number=calls, repeat=times)
        return lambda *tensors: timer(*tensors).results

    def close(self) -> None:
        """End the session: what was loaded there is gone."""
        # Dropping all references would do too, but a traceback may hold one.
        with contextlib.suppress(RuntimeError):  # it broke before
            self._session.get_function("CloseRPCConnection")()


def refuse_gpu(target: str, machine: str, where: str | None) -> None:
    """Raise OptionError for a GPU's target: a device runs code for its processor alone.

    Args:
        target: Its name.
        machine: What it is for; "cuda" is a GPU.
        where: The device or the artifact, for the error.
    """
    if machine == "cuda":
        raise OptionError(
            f"target {target!r} is a GPU's, and a device runs code for processors alone",
            where=where,
            cure="name a target for the device's processor",
        )
