"""Runs the launches of a plan on a device: NVIDIA's driver, or the emulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..layout import SLACK
from . import driver
from .driver import Call
from .launch import Launch


class Memory(Protocol):
    """Some of a device's memory."""

    @property
    def address(self) -> int:
        """Where it begins."""
        ...


class Queue(Protocol):
    """What does work in the order in which it is given, perhaps later."""

    def upload(self, memory: Any, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the device."""
        ...

    def download(self, memory: Any, array: NDArray[Any]) -> None:
        """Copy from the device to a contiguous array."""
        ...

    def prepare(self, calls: Sequence[Call]) -> Callable[[], None]:
        """Return a function that gives these calls to the queue, in order."""
        ...

    def wait(self) -> None:
        """Wait until all is done that was given."""
        ...


class Device(Protocol):
    """What has memory and runs kernels."""

    def allocate(self, nbytes: int) -> Any:
        """Return a `Memory` of at least this size, holding anything."""
        ...

    def queue(self) -> Queue:
        """Return a queue of its own."""
        ...


class _Room:
    """The memory of one call, and the call itself, whose addresses are fixed with it."""

    def __init__(self, library: GpuLibrary) -> None:
        device, self.queue = library.device, library.device.queue()
        self.workspace = device.allocate(max(library.workspace_bytes, 1))
        self.inputs = [device.allocate(size + SLACK) for size in library.input_bytes]
        self.outputs = [device.allocate(size + SLACK) for size in library.output_bytes]
        self._parameters = library.parameters
        if library.setup:
            self.queue.prepare([self._call(launch) for launch in library.setup])()
        self.compute = self.queue.prepare([self._call(launch) for launch in library.launches])

    def _call(self, launch: Launch) -> Call:
        addresses = tuple(self._address(*place) for place in launch.arguments)
        return Call(launch.kernel, launch.grid, launch.block, launch.shared, addresses)

    def _address(self, memory: str, index: int, offset: int) -> int:
        if memory in ("input", "output"):
            tensors = self.inputs if memory == "input" else self.outputs
            return tensors[index].address + offset
        shared = self.workspace if memory == "workspace" else self._parameters
        return shared.address + offset


class GpuLibrary:
    """A network on a device, with its parameters and the memory of its calls.

    Calls from several Python threads at once are safe: each takes memory of its own.
    """

    def __init__(
        self,
        device: Device,
        setup: Sequence[Launch],
        launches: Sequence[Launch],
        parameters: NDArray[np.uint8],
        workspace_bytes: int,
        tensors: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Copy the parameters to the device, and take the memory of one call.

        Args:
            device: Where the kernels are loaded.
            setup: Launches that fill the memory of a call once, before the first one.
            launches: Of each call, in order.
            parameters: The packed parameter memory.
            workspace_bytes: What each call needs.
            tensors: Bytes of each input, and of each output.
        """
        self.device = device
        self.setup, self.launches = setup, launches
        self.workspace_bytes = workspace_bytes
        self.input_bytes, self.output_bytes = tensors
        self.parameters = device.allocate(parameters.nbytes)
        queue = device.queue()
        queue.upload(self.parameters, parameters)
        queue.wait()
        # What a first call needs is taken now: a GPU without room for it is found when loading.
        self._free = [_Room(self)]

    def _take(self) -> _Room:
        try:
            return self._free.pop()
        except IndexError:
            return _Room(self)

    def run(self, arrays: list[NDArray[Any]]) -> None:
        """Compute the outputs, which follow the inputs; all are contiguous."""
        room = self._take()
        self._upload(room, arrays)
        room.compute()
        for memory, array in zip(room.outputs, arrays[len(room.inputs) :], strict=True):
            room.queue.download(memory, array)
        room.queue.wait()
        self._free.append(room)

    @staticmethod
    def _upload(room: _Room, arrays: list[NDArray[Any]]) -> None:
        for memory, array in zip(room.inputs, arrays, strict=False):
            room.queue.upload(memory, array)

    def tensors(self, arrays: list[NDArray[Any]]) -> list[Any]:
        """Return the arguments of `entry` for these arrays, which are copied to the device now."""
        room = self._take()
        self._upload(room, arrays)
        room.queue.wait()
        return [room]

    @staticmethod
    def entry(room: _Room) -> None:
        """Compute once on what is on the device, and wait for the end."""
        room.compute()
        room.queue.wait()


def load_library(
    content: bytes, manifest: dict[str, Any], parameters: NDArray[np.uint8]
) -> GpuLibrary:
    """Load an artifact's cubin on this machine's GPU.

    Args:
        content: The cubin.
        manifest: Of the artifact, with the target's plan.
        parameters: The packed parameter memory.

    Raises:
        DriverError: There is no GPU, or its driver fails.
        ValueError: A launch says what can't be, as do TypeError and KeyError.
    """
    setup, launches = (
        [Launch.from_json(entry) for entry in manifest[part]] for part in ("setup", "launches")
    )
    tensors = _bytes_of(manifest["inputs"]), _bytes_of(manifest["outputs"])
    workspace_bytes = manifest["workspace_bytes"]
    sizes = {"workspace": [workspace_bytes], "parameters": [parameters.nbytes]}
    for launch in [*setup, *launches]:
        launch.check({**sizes, "input": tensors[0], "output": tensors[1]})
    device = driver.Device(content)
    return GpuLibrary(device, setup, launches, parameters, workspace_bytes, tensors)


def _bytes_of(tensors: list[dict[str, Any]]) -> list[int]:
    return [prod(entry["shape"]) * np.dtype(entry["dtype"]).itemsize for entry in tensors]
