"""An artifact that runs on a device: its code and parameters are uploaded once, inputs a call."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import ArtifactError, OptionError, TargetError

from ..artifact import Artifact, Timing, check_amounts
from ..container import Container, read_file
from ..matching import choose_target
from ..packing import pack_all
from .device import Device, refuse_gpu

# What TVM writes before an error that the other side raised.
_REFUSAL = "Error caught from RPC call"


class RemoteArtifact(Artifact):
    """A compiled network on a device; called like any artifact, with equal results.

    One call runs at a time. What goes wrong on the way is a TargetError.
    """

    def __init__(
        self, content: bytes, where: str, device: Device, target: str | None = None
    ) -> None:
        """Upload an artifact; prefer `load_remote(path, device)`.

        Args:
            content: The file's bytes.
            where: The file's name, for errors.
            device: Where it runs.
            target: Which of its targets; by default the best that the device runs.

        Raises:
            ArtifactError: Not an artifact, damaged, or for another processor than the device's.
            OptionError: It has no such target; or none is named and the device doesn't tell what
                it is.
            TargetError: The device stopped answering, or can't load the code.
        """
        self._device = device
        super().__init__(content, where, target)

    def _choose(self, container: Container, target: str | None, elsewhere: bool) -> str:
        del elsewhere
        entries = container.manifest["targets"]
        names = [entry["name"] for entry in entries]
        processor = self._device.describe()
        if processor is not None:
            return choose_target(entries, target, container.where, processor)
        if target is not None and target in names:
            refuse_gpu(target, entries[names.index(target)]["machine"], container.where)
            return target
        if target in (None, "native"):
            what, where = "the device doesn't tell what it is", self._device.address
        else:
            what, where = f"the artifact has no code for target {target!r}", container.where
        cure = f"name one of the artifact's targets: {', '.join(names)}"
        raise OptionError(what, where=where, cure=cure)

    def _load(self, container: Container, target: str) -> Any:
        with self._talking(target):
            return _RemoteLibrary(
                self._device, container.library(target), self.manifest, container.tensors()
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network on the device; as `Artifact.__call__`.

        Raises:
            TargetError: The device stopped answering.
        """
        with self._talking(self.target):
            return super().__call__(*args, **kwargs)

    def bench(
        self, *inputs: Any, seconds: float = 0.5, calls: int | None = None, warm_up: int = 10
    ) -> Timing:
        """Time calls on the device, by its clock; the network's way there isn't in it.

        Args:
            inputs: What to run on; zeros by default.
            seconds: How long to measure, if `calls` is not given.
            calls: How many calls to measure.
            warm_up: Calls before that.

        Raises:
            DataError: Inputs that don't fit.
            OptionError: `seconds`, `calls` or `warm_up` is no such amount.
            TargetError: The device stopped answering.
        """
        check_amounts(seconds, calls, warm_up)
        arrays = self._arrays(inputs or self._zeros())
        outputs = [np.empty(info.shape, info.dtype) for info in self.outputs]
        library: Any = self._library
        with self._talking(self.target):
            once = library.seconds(arrays + outputs, 1, max(warm_up, 1))
            count = calls or max(1, int(seconds / max(min(once), 1e-6)))
            measured = [1e3 * each for each in library.seconds(arrays + outputs, 1, count)]
        return Timing(min(measured), statistics.median(measured), len(measured))

    def prepared(self, *inputs: Any) -> Callable[[], Any]:
        """Return a function that runs the code once on inputs that are on the device already.

        Args:
            inputs: What to run on, in order.

        Raises:
            TargetError: The device stopped answering; what is returned raises it, too.
        """
        arrays = self._arrays(inputs)
        outputs = [np.empty(info.shape, info.dtype) for info in self.outputs]
        library: Any = self._library
        with self._talking(self.target):
            once = library.prepared(arrays + outputs)

        def run() -> Any:
            with self._talking(self.target):
                return once()

        return run

    @contextlib.contextmanager
    def _talking(self, target: str) -> Iterator[None]:
        """Make one error of what TVM raises when a session breaks or the device refuses."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            raise _problem(str(error), target, self._device.address) from error


def load_remote(
    path: str | os.PathLike[str], device: Device, target: str | None = None
) -> RemoteArtifact:
    """Upload an artifact's file to a device.

    Raises:
        ArtifactError: Unreadable, foreign, damaged, or for another processor than the device's.
        OptionError: It has no such target, or a target has to be named.
        TargetError: The device stopped answering, or can't load the code.
    """
    return RemoteArtifact(read_file(path), os.fspath(path), device, target)


class _RemoteLibrary:
    """The code, parameters and workspace of an artifact on a device; see `runtime.Library`."""

    def __init__(
        self,
        device: Device,
        library: bytes,
        manifest: dict[str, Any],
        tensors: dict[str, NDArray[Any]],
    ) -> None:
        self._device = device
        self.name = manifest["entry"]
        self._module = device.load(library, manifest["threads"])
        parameters = pack_all(manifest["recipes"], tensors, manifest["parameter_bytes"])
        self._memory = [
            device.tensor(parameters),
            device.empty((manifest["workspace_bytes"],), "uint8"),
        ]
        self._inputs = len(manifest["inputs"])

    def run(self, arrays: list[NDArray[Any]]) -> None:
        """Call the entry on the inputs, then fill the outputs."""
        tensors = self.tensors(arrays)
        status = self._module[self.name](*tensors)
        if status:
            raise ArtifactError(f"a parallel kernel failed with status {status}")
        for array, tensor in zip(arrays[self._inputs :], tensors[self._inputs :], strict=False):
            array[...] = tensor.numpy()

    def prepared(self, arrays: list[NDArray[Any]]) -> Callable[[], Any]:
        """Return what calls the entry on these arrays, uploaded now; the outputs stay there."""
        return partial(self._module[self.name], *self.tensors(arrays))

    def tensors(self, arrays: list[NDArray[Any]]) -> list[Any]:
        """Return the arguments of the entry, inputs uploaded."""
        inputs = [self._device.tensor(array) for array in arrays[: self._inputs]]
        outputs = [self._device.empty(a.shape, a.dtype) for a in arrays[self._inputs :]]
        return [*inputs, *outputs, *self._memory]

    def seconds(self, arrays: list[NDArray[Any]], calls: int, times: int) -> list[float]:
        """Return seconds of a call by the device's clock, one each time."""
        clock = self._device.clock(self._module, self.name, calls, times)
        return [float(each) for each in clock(*self.tensors(arrays))]


def _problem(text: str, target: str, where: str) -> TargetError:
    """Return the error for what TVM reports: a refusal by the device, or a session that is gone."""
    if _REFUSAL in text:
        said = text.strip().splitlines()[-1].strip()
        return TargetError(f"the device can't run {target!r}: {said}", where=where)
    return TargetError(
        f"the session with the device ended while it ran {target!r}",
        where=where,
        cure="look at the server's output: it may have been stopped, or its processor may lack "
        f"what {target!r} needs",
    )
