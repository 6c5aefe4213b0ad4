"""`planish run`: an artifact computes the outputs of some inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.ir.errors import DataError, OptionError

from .console import check_writable, print_json, say, shape_text, stdout
from .devices import RPC_HELP, loaded_artifact

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planish.backends.artifact import Artifact


def run(
    artifact: Annotated[Path, typer.Argument(help="What `planish compile` wrote.")],
    input_: Annotated[
        Path, typer.Option("--input", "-i", help="A .npy or .npz file, arrays by input name.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .npz, or .npy for one output.")
    ],
    target: Annotated[
        str | None,
        typer.Option(help="Which of its targets to run; by default the best that can run."),
    ] = None,
    rpc: Annotated[str | None, typer.Option(help=RPC_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Run an artifact on inputs; any number of samples that its batch divides."""
    check_writable(output)
    with loaded_artifact(artifact, target, rpc) as loaded:
        _check_format(output, [info.name for info in loaded.outputs])
        inputs = read_inputs(loaded, input_)
        outputs = run_samples(loaded, inputs)
    _write(output, outputs)
    if as_json:
        shapes = {name: list(value.shape) for name, value in outputs.items()}
        print_json({"output": str(output), "target": loaded.target, "outputs": shapes})
        return
    for name, value in outputs.items():
        stdout().print(f"{name}: {value.dtype} {shape_text(value.shape)}")
    say(f"wrote {output}")


def read_inputs(artifact: Artifact, path: Path) -> dict[str, NDArray[Any]]:
    """Return the inputs in a file by the artifact's names.

    Raises:
        DataError: The file can't be read or lacks an input.
    """
    from ..npz import read_npz

    arrays = read_npz(path)
    arrays.pop("labels", None)
    names = [info.name for info in artifact.inputs]
    if len(names) == len(arrays) == 1:
        return {names[0]: next(iter(arrays.values()))}
    missing = sorted(set(names) - arrays.keys())
    if missing:
        raise DataError(f"the file has no {missing}; it has {sorted(arrays)}", where=str(path))
    return {name: arrays[name] for name in names}


def run_samples(artifact: Artifact, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run an artifact on more samples than its batch holds; return its flat outputs by name.

    Raises:
        DataError: The inputs don't fit.
    """
    import numpy as np

    shapes = {info.name: info.shape for info in artifact.inputs}
    whole = all(
        value.ndim == len(shapes[name]) and value.ndim and len(value) % shapes[name][0] == 0
        for name, value in inputs.items()
    )
    counts = {len(value) // shapes[name][0] for name, value in inputs.items()} if whole else set()
    if len(counts) != 1 or counts == {0}:
        found = {name: list(value.shape) for name, value in inputs.items()}
        wanted = ", ".join(str(info) for info in artifact.inputs)
        raise DataError(f"the inputs {found} don't fit the artifact's {wanted}")
    (count,) = counts
    rows: list[list[NDArray[Any]]] = []
    for index in range(count):
        part = {
            name: value[index * shapes[name][0] : (index + 1) * shapes[name][0]]
            for name, value in inputs.items()
        }
        rows.append(_flat(artifact(**part)))
    return {
        info.name: np.concatenate(values)
        for info, values in zip(artifact.outputs, zip(*rows, strict=True), strict=True)
    }


def _flat(outputs: Any) -> list[NDArray[Any]]:
    """Return nested outputs as a list."""
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple):
        return [leaf for child in outputs for leaf in _flat(child)]
    return [outputs]


def _check_format(path: Path, names: list[str]) -> None:
    """Raise OptionError if the outputs don't fit the kind of file that its name asks for."""
    if path.suffix == ".npy" and len(names) != 1:
        raise OptionError(
            f"a .npy file holds one array, and the artifact has {len(names)} outputs: "
            f"{', '.join(names)}",
            where=str(path),
            cure=f"write them to {path.with_suffix('.npz')}",
        )


def _write(path: Path, outputs: dict[str, NDArray[Any]]) -> None:
    """Write a .npy file where the name says so, else .npz, arrays by output name."""
    import io

    import numpy as np

    from planish.ir.files import write_beside

    buffer = io.BytesIO()
    if path.suffix == ".npy":
        (array,) = outputs.values()
        np.save(buffer, array)
    else:
        np.savez(buffer, **outputs)  # type: ignore[arg-type]
    write_beside(path, buffer.getvalue())
