"""ONNX Runtime as a peer: the same model in float and, quantized by its own tools, in int8."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
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
    """A model in ONNX Runtime, on one thread.

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


def open_session(path: str | os.PathLike[str]) -> Session:
    """Load an ONNX file with one input for one thread.

    Raises:
        ModelError: ONNX Runtime isn't installed or can't load the file.
    """
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{NAME} can't load it: {first}", where=str(path)) from error
    return Session(session, session.get_inputs()[0].name, Path(path).stat().st_size)


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
