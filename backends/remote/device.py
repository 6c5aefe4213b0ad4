"""A session on a device: what it is, and memory and libraries there."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import TargetError, first_line

from ..matching import Processor
from ..runtime import load_ffi
from .address import address_text, require_server

# What planish's own server registers; see `server`.
DESCRIBE = "planish.describe_device"


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
            TargetError: Nobody answers there, or no RPC server.
        """
        self.address = address_text(address)
        if not key:  # a tracker knows its servers, and they are lent to one client
            require_server(address)
        load_ffi()  # before TVM, which would import torch with it
        from tvm import rpc

        try:
            self._session: Any = rpc.connect(*address, key, seconds)
        except (OSError, RuntimeError, ValueError) as error:
            raise TargetError(f"no RPC session: {first_line(error)}", where=self.address) from error
        self._cpu = self._session.cpu(0)
        self._loaded = 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def describe(self) -> Processor | None:
        """Return the device's processor; None where the server doesn't tell, as TVM's own."""
        try:
            answer = self._session.get_function(DESCRIBE)()
        except (AttributeError, ValueError):
            return None
        told = json.loads(str(answer))
        return Processor(told["machine"], frozenset(told["cpu_flags"]), "the device")

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
            self._session.get_function("runtime.config_threadpool")(1, threads)
        return module

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
