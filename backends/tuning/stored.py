"""What is measured, as files: one process builds kernels, another one times them.

A layer's folder holds its inputs and where its output lies; each choice's folder below it, the
kernel with its parameters.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..packing import aligned_bytes


@dataclass(frozen=True)
class Region:
    """Where a tensor's values lie in the workspace.

    Attributes:
        offset: Byte offset of the tensor's memory.
        base: Element offset of the first value.
        shape: Sizes (images, height, width, channels).
        steps: Elements from one entry of an axis to the next.
        dtype: NumPy's name of the element type.
    """

    offset: int
    base: int
    shape: tuple[int, ...]
    steps: tuple[int, ...]
    dtype: str

    def view(self, memory: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the values as an array that shows the workspace's memory."""
        dtype = np.dtype(self.dtype)
        start = self.offset + self.base * dtype.itemsize
        strides = [step * dtype.itemsize for step in self.steps]
        return np.ndarray(self.shape, dtype, memory, start, strides)


@dataclass(frozen=True)
class Isolated:
    """A layer computed in one way, ready to run.

    Attributes:
        library: Bytes of a shared library.
        entry: Its function, see `emit.emit_module(copied=)`.
        parameters: One copy of the packed parameter memory.
        copy_bytes: How far copies of it are from each other.
        workspace_bytes: Of the workspace; it begins with what `Bench.filled` holds.
    """

    library: bytes
    entry: str
    parameters: NDArray[np.uint8]
    copy_bytes: int
    workspace_bytes: int


def store(folder: Path, built: Isolated) -> Path:
    """Write what a measurement needs to files; return the folder."""
    folder.mkdir()
    (folder / "kernel.so").write_bytes(built.library)
    (folder / "parameters").write_bytes(built.parameters.tobytes())
    sizes = {
        "entry": built.entry,
        "copy_bytes": built.copy_bytes,
        "workspace_bytes": built.workspace_bytes,
    }
    (folder / "sizes.json").write_text(json.dumps(sizes))
    return folder


def store_inputs(folder: Path, filled: NDArray[np.uint8], output: Region) -> None:
    """Write what all choices of a layer have in common, beside their folders."""
    (folder / "inputs").write_bytes(filled.tobytes())
    (folder / "output.json").write_text(json.dumps(asdict(output)))


@dataclass(frozen=True)
class Stored:
    """What `store` and `store_inputs` wrote, read back."""

    folder: Path
    entry: str
    parameters: NDArray[np.uint8]
    copy_bytes: int
    workspace: NDArray[np.uint8]

    @staticmethod
    def read(folder: Path) -> Stored:
        """Read a choice's folder."""
        sizes = json.loads((folder / "sizes.json").read_text())
        inputs = np.fromfile(folder.parent / "inputs", np.uint8)
        workspace = aligned_bytes(sizes["workspace_bytes"])
        workspace[: inputs.size] = inputs
        parameters = np.fromfile(folder / "parameters", np.uint8)
        return Stored(folder, sizes["entry"], parameters, sizes["copy_bytes"], workspace)

    def output(self, workspace: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the layer's result in a workspace."""
        place = json.loads((self.folder.parent / "output.json").read_text())
        region = Region(**{**place, "shape": tuple(place["shape"]), "steps": tuple(place["steps"])})
        return region.view(workspace).view(np.dtype(f"u{np.dtype(region.dtype).itemsize}"))
