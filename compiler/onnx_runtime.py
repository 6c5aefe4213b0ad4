"""ONNX Runtime as a peer: the same model in float and, quantized by its own tools, in int8."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

NAME = "ONNX Runtime"


@dataclass(frozen=True)
class Session:
    """A model with one input in ONNX Runtime.

    Attributes:
        session: The runtime's own object.
        input: Name of the only input.
        nbytes: Size of the model's file.
    """

    session: onnxruntime.InferenceSession
    input: str
    nbytes: int

    def __call__(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the first output."""
        return np.asarray(self.session.run(None, {self.input: images})[0])

    def outputs(self, images: NDArray[Any], batch: int = 500) -> NDArray[Any]:
        """Return the first output on many samples.

        Args:
            images: [n, ...].
            batch: Samples a call.

        Returns:
            [n, ...].
        """
        starts = range(0, len(images), batch)
        return np.concatenate([self(images[start : start + batch]) for start in starts])


class Prepared:
    """A model in ONNX Runtime with its inputs in place: what is left of a call is the network.

    Attributes:
        version: Of ONNX Runtime.
        settings: How it was told to run.
    """

    name = NAME

    def __init__(
        self, path: str | os.PathLike[str], inputs: Sequence[NDArray[Any]], threads: int
    ) -> None:
        """Load an ONNX file.

        Args:
            path: The file.
            inputs: One array an input, in the file's order; open sizes are fixed to theirs.
            threads: Threads that a call may use.

        Raises:
            ModelError: ONNX Runtime isn't installed, or can't load or run the file.
        """
        self.version: str = _runtime().__version__
        self.settings: dict[str, Any] = {"intra_op_num_threads": threads}
        self._session = _session(path, threads, _open_sizes(path, inputs))
        self._binding = self._session.io_binding()
        self._arrays = [np.ascontiguousarray(array) for array in inputs]
        for info, array in zip(self._session.get_inputs(), self._arrays, strict=True):
            self._binding.bind_cpu_input(info.name, array)
        for info in self._session.get_outputs():
            self._binding.bind_output(info.name)
        with _told(path, "run"):
            self()

    def __call__(self) -> None:
        """Run the network on the inputs."""
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[NDArray[Any]]:
        """Return what the last call made."""
        return [np.asarray(value) for value in self._binding.copy_outputs_to_cpu()]


def open_session(path: str | os.PathLike[str], threads: int = 1) -> Session:
    """Load an ONNX file with one input.

    Raises:
        ModelError: ONNX Runtime isn't installed or can't load the file.
    """
    session = _session(path, threads, {})
    return Session(session, session.get_inputs()[0].name, Path(path).stat().st_size)


def _session(path: str | os.PathLike[str], threads: int, sizes: Mapping[str, int]) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    with _told(path, "load"):
        return runtime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )


@contextlib.contextmanager
def _told(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Say ONNX Runtime's errors as planish's."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{NAME} can't {what} it: {first}", where=str(path)) from error


def _open_sizes(path: str | os.PathLike[str], inputs: Sequence[NDArray[Any]]) -> dict[str, int]:
    """Return what the file's named open sizes are for these inputs."""
    import onnx

    graph = onnx.load(os.fspath(path), load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    infos = [info for info in graph.input if info.name not in stored]
    return {
        dim.dim_param: size
        for info, array in zip(infos, inputs, strict=False)
        for dim, size in zip(info.type.tensor_type.shape.dim, array.shape, strict=False)
        if dim.dim_param
    }


def quantize_onnx(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    calibration: Iterable[NDArray[Any]],
    *,
    form: str = "QDQ",
    per_channel: bool = True,
    activations: str = "QUInt8",
) -> Path:
    """Quantize an ONNX file as ONNX Runtime advises: static QDQ, per channel, u8 x s8, min-max.

    Args:
        path: The float model, one input.
        output: File to write.
        calibration: Batches of its input.
        form: "QDQ" or "QOperator".
        per_channel: One weight scale an output channel.
        activations: "QUInt8" or "QInt8".

    Raises:
        ModelError: ONNX Runtime isn't installed or can't quantize the model.
    """
    _runtime()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """Hands out the batches one by one, as the calibrator asks for them."""

        def __init__(self, name: str, batches: Iterable[NDArray[Any]]) -> None:
            self.batches: Iterator[NDArray[Any]] = iter(batches)
            self.name = name

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {self.name: batch}

    name = open_session(path).input
    logging.getLogger().setLevel(logging.ERROR)  # it warns of what the next line does
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(os.fspath(path), os.fspath(prepared), skip_symbolic_shape=True)
        quantize_static(
            os.fspath(prepared),
            os.fspath(output),
            Reader(name, calibration),
            quant_format=QuantFormat[form],
            per_channel=per_channel,
            activation_type=QuantType[activations],
            weight_type=QuantType.QInt8,
        )
    return Path(output)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(f"{NAME} is not installed", cure="pip install 'planish[bench]'") from error
    return onnxruntime
