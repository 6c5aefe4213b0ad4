"""A compiled network: loads, runs and measures itself with neither torch nor onnx."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.calling import bind_arguments, nest_structure
from planish.ir.errors import ArtifactError, OptionError
from planish.ir.files import write_beside

from .container import LIBRARY, Container, read_file
from .cuda.driver import DriverError
from .cuda.library import GpuLibrary, load_library
from .inputs import fit_array
from .manifest import damage_named
from .matching import choose_target
from .packing import pack_all
from .runtime import Library


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of an artifact.

    Attributes:
        name: Its name.
        shape: Its sizes.
        dtype: NumPy's name of its dtype.
        scale: Real step of one quantized unit, where the tensor is quantized at this place.
        zero_point: Quantized value of real zero.
        quantized_dtype: "uint8" or "int8", where quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    quantized_dtype: str | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call, measured inside one thread.

    Attributes:
        minimum: The fastest call.
        median: The middle call.
        calls: How many were measured.
    """

    minimum: float
    median: float
    calls: int


@dataclass(frozen=True)
class Memory:
    """Bytes that a loaded artifact takes.

    Attributes:
        activations: Workspace of one call: values that don't live at the same time share memory.
        unplanned: What it would be if no two values shared memory.
        least: What any plan needs: the most bytes that are alive at one step.
        parameters: Packed weights and tables; all calls share them.
    """

    activations: int
    unplanned: int
    least: int
    parameters: int


class Artifact:
    """A compiled network, for one target or several.

    Calls from several Python threads at once are safe.

    Attributes:
        manifest: Everything known about it, as plain JSON: what all targets share, and under
            "target", "steps", "recipes" and the like the chosen target's own.
        inputs: What it takes.
        outputs: What it returns, flat.
        passed_over: Targets that fit this machine's GPU but that its driver could not load, and
            why; another target runs instead.
    """

    def __init__(
        self,
        content: bytes,
        where: str | None = None,
        target: str | None = None,
        *,
        elsewhere: bool = False,
    ) -> None:
        """Make an artifact of its file's bytes; prefer `Artifact.load(path)`.

        Args:
            content: The file's bytes.
            where: The file's name, for errors; None where there is no file.
            target: Which of its targets to run; by default the best that this machine runs.
            elsewhere: Accept an artifact that this machine can't run; calling it is the error then.

        Raises:
            ArtifactError: Not an artifact, damaged, or for another processor.
            OptionError: It has no such target.
        """
        container = Container(content, where)
        self._content = content
        self._refusal: ArtifactError | None = None
        self.passed_over: dict[str, str] = {}
        with damage_named(where):
            self._loaded = self._load_best(container, target, elsewhere)
            self.inputs = [_info(entry) for entry in self.manifest["inputs"]]
            self.outputs = [_info(entry) for entry in self.manifest["outputs"]]
            self.memory = Memory(**self.manifest["memory"])
        self._structure = self.manifest["structure"]
        self._names = [info.name for info in self.inputs]
        self._wanted = [(info.shape, np.dtype(info.dtype)) for info in self.inputs]
        self._made = [(info.shape, np.dtype(info.dtype)) for info in self.outputs]

    def _load_best(
        self, container: Container, target: str | None, elsewhere: bool
    ) -> Library | GpuLibrary | None:
        """Load the best target whose code the GPU's driver, if it is for one, takes.

        None where the machine runs no target, with `elsewhere`.
        """
        while True:
            chosen = self._choose(container, target, elsewhere)
            self.manifest: dict[str, Any] = _merged(container, chosen)
            if self._refusal is not None:
                return None
            try:
                return self._load(container, chosen)
            except DriverError as error:
                self.passed_over[chosen] = f"{chosen!r} fits, but {error.what}"

    def _choose(self, container: Container, target: str | None, elsewhere: bool) -> str:
        targets = container.manifest["targets"]
        try:
            return choose_target(targets, target, container.where, failed=self.passed_over)
        except ArtifactError as error:
            if not elsewhere:
                raise
            self._refusal = error
            return targets[0]["name"]

    def _load(self, container: Container, target: str) -> Library | GpuLibrary:
        """Pack the parameters of a target and load its code."""
        manifest = self.manifest
        parameters = pack_all(manifest["recipes"], container.tensors(), manifest["parameter_bytes"])
        content = container.library(target, manifest.get("library", LIBRARY))
        if manifest["target"]["machine"] == "cuda":
            return load_library(content, manifest, parameters)
        return Library(
            content,
            manifest["entry"],
            parameters,
            manifest["workspace_bytes"],
            manifest["threads"],
            manifest["needs_runtime"],
        )

    @staticmethod
    def load(path: str | os.PathLike[str], target: str | None = None) -> Artifact:
        """Read an artifact.

        Args:
            path: The file.
            target: Which of its targets to run; by default the best that this machine runs.

        Raises:
            ArtifactError: Unreadable, foreign, damaged, or for another processor.
            OptionError: It has no such target.
        """
        return Artifact(read_file(path), os.fspath(path), target)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artifact to one file; an older file there is replaced at once or not at all.

        Raises:
            PlanishError: The folder is missing or not writable, or the disk is full.
        """
        write_beside(path, self._content)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network.

        Args:
            args: NumPy arrays, or anything with DLPack, in the order of `inputs`.
            kwargs: The same by input name.

        Returns:
            NumPy arrays, nested as the model's outputs are.

        Raises:
            DataError: A wrong count, name, shape or dtype.
            ArtifactError: It was compiled here for another machine.
        """
        arrays = self._arrays(args, kwargs)
        results = [np.empty(shape, dtype) for shape, dtype in self._made]
        self._library.run(arrays + results)
        return nest_structure(self._structure, results)

    def _arrays(
        self, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> list[NDArray[Any]]:
        """Return the inputs as contiguous arrays that fit, in order."""
        if kwargs or len(args) != len(self._names):
            args = tuple(bind_arguments(self._names, args, kwargs or {}, "artifact"))
        return [
            fit_array(name, value, *wanted)
            for name, value, wanted in zip(self._names, args, self._wanted, strict=True)
        ]

    def _zeros(self) -> tuple[NDArray[Any], ...]:
        """Return what `bench` runs on by default."""
        return tuple(np.zeros(shape, dtype) for shape, dtype in self._wanted)

    def bench(
        self, *inputs: Any, seconds: float = 0.5, calls: int | None = None, warm_up: int = 10
    ) -> Timing:
        """Time calls of the compiled code on one input, without Python's part of a call.

        Args:
            inputs: What to run on; zeros by default.
            seconds: How long to measure, if `calls` is not given.
            calls: How many calls to measure.
            warm_up: Calls before that.

        Raises:
            DataError: Inputs that don't fit.
            OptionError: `seconds`, `calls` or `warm_up` is no such amount.
            ArtifactError: It was compiled here for another machine.
        """
        check_amounts(seconds, calls, warm_up)
        arrays = self._arrays(inputs or self._zeros())
        results = [np.empty(shape, dtype) for shape, dtype in self._made]
        self._library.run(arrays + results)  # sets up this thread's pool, too
        tensors = self._library.tensors(arrays + results)
        entry, clock = self._library.entry, time.perf_counter_ns
        for _ in range(warm_up):
            entry(*tensors)
        measured: list[int] = []
        end = clock() + int(seconds * 1e9)
        while len(measured) < calls if calls else not measured or clock() < end:
            start = clock()
            entry(*tensors)
            measured.append(clock() - start)
        return Timing(min(measured) / 1e6, statistics.median(measured) / 1e6, len(measured))

    def prepared(self, *inputs: Any) -> Callable[[], Any]:
        """Return a function that runs the compiled code once on these inputs, and nothing else.

        On a GPU the inputs are there already, and the outputs stay there.

        Args:
            inputs: What to run on, in order.
        """
        arrays = self._arrays(inputs)
        results = [np.empty(shape, dtype) for shape, dtype in self._made]
        self._library.run(arrays + results)  # sets up this thread's pool, too
        return partial(self._library.entry, *self._library.tensors(arrays + results))

    @property
    def _library(self) -> Library | GpuLibrary:
        if self._loaded is None:
            assert self._refusal is not None
            raise self._refusal.with_traceback(None)
        return self._loaded

    @property
    def target(self) -> str:
        """The target whose code runs here; the best one, if this machine runs none of them."""
        return self.manifest["target"]["name"]

    @property
    def targets(self) -> list[str]:
        """The targets that it holds code for, best first."""
        return [entry["name"] for entry in self.manifest["targets"]]

    @property
    def runs_here(self) -> bool:
        """Whether this machine can call it."""
        return self._loaded is not None

    @property
    def coverage(self) -> dict[str, Any]:
        """`int8_macs`, `macs`, `int8_mac_coverage`, and `fallbacks`: nodes left in float."""
        return self.manifest["coverage"]

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(self._content)

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return self._content

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        return f"Artifact({inputs}; target {', '.join(self.targets)}, {self.nbytes} bytes)"


def _info(entry: dict[str, Any]) -> TensorInfo:
    return TensorInfo(**{**entry, "shape": tuple(entry["shape"])})


def _merged(container: Container, target: str) -> dict[str, Any]:
    """Return the manifest with the plan of one target; of the others, the names and needs."""
    shared = container.manifest
    (entry,) = [entry for entry in shared["targets"] if entry["name"] == target]
    return {**shared, **container.plan(target), "target": entry}


def check_amounts(seconds: float, calls: int | None, warm_up: int) -> None:
    """Raise OptionError unless `bench` can measure for so long, or so many calls."""
    for name, value, least in (
        ("calls", 1 if calls is None else calls, 1),
        ("warm_up", warm_up, 0),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise OptionError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise OptionError(f"seconds must be a positive number, not {seconds!r}")
