"""OpenVINO as a peer: the same quantized ONNX file."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import ModelError, OptionError

from .latency import interleaved

NAME = "OpenVINO"
_ISA = "ONEDNN_MAX_CPU_ISA"
_TRIALS = 20  # timed calls of each setting


class Prepared:
    """A model in OpenVINO with its inputs in place: what is left of a call is the network.

    One stream and the latency hint, float parts in float32 as in the other runtimes. What is best
    depends on the machine, and is tried: whether threads are bound to cores (slow where something
    else runs on these cores) and how they share the work.

    Attributes:
        version: Of OpenVINO.
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
            ModelError: OpenVINO isn't installed, or can't load or run the file.
        """
        openvino = _openvino()
        self.version: str = openvino.__version__.partition("-")[0]
        core = openvino.Core()
        choices = _settings(threads, core.get_property("CPU", "SUPPORTED_PROPERTIES"))
        self._arrays = [np.ascontiguousarray(array) for array in inputs]
        try:
            requests = _requests(openvino, core, path, self._arrays, choices)
            calls = {str(i): request.infer for i, request in enumerate(requests)}
            timings = interleaved(calls, _TRIALS)
        except RuntimeError as error:
            raise ModelError(f"{NAME} can't run it: {_reason(error)}", where=str(path)) from error
        best = min(range(len(choices)), key=lambda i: timings[str(i)].minimum)
        self.settings: dict[str, Any] = choices[best]
        if _ISA in os.environ:
            self.settings[_ISA] = os.environ[_ISA]
        self._request = requests[best]

    def __call__(self) -> None:
        """Run the network on the inputs."""
        self._request.infer()

    def outputs(self) -> list[NDArray[Any]]:
        """Return what the last call made."""
        return [np.array(tensor.data) for tensor in self._request.output_tensors]


def limit_instructions(isa: str) -> None:
    """Make OpenVINO run as on a machine without newer instructions, for the whole process.

    Args:
        isa: As oneDNN names it: "AVX2".

    Raises:
        OptionError: OpenVINO is loaded already, and has chosen.
    """
    if "openvino" in sys.modules and os.environ.get(_ISA) != isa:
        raise OptionError(
            f"{NAME} is loaded and can't be limited to {isa} any more",
            cure=f"set {_ISA}={isa} before Python starts",
        )
    os.environ[_ISA] = isa


def _settings(threads: int, known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings worth trying."""
    base = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    choices = [{**base, "ENABLE_CPU_PINNING": pinned} for pinned in (False, True)]
    if threads == 1 or "TBB_PARTITIONER" not in known:
        return choices
    return [{**each, "TBB_PARTITIONER": way} for each in choices for way in ("STATIC", "AUTO")]


def _requests(
    openvino: Any,
    core: Any,
    path: str | os.PathLike[str],
    inputs: Sequence[NDArray[Any]],
    settings: Sequence[Mapping[str, Any]],
) -> list[Any]:
    """Return a request for each setting, the inputs in place."""
    model = core.read_model(os.fspath(path))
    model.reshape({i: list(array.shape) for i, array in enumerate(inputs)})
    requests: list[Any] = []
    for each in settings:
        request = core.compile_model(model, "CPU", dict(each)).create_infer_request()
        for i, array in enumerate(inputs):
            request.set_input_tensor(i, openvino.Tensor(array))
        requests.append(request)
    return requests


def _reason(error: RuntimeError) -> str:
    """Return the line of OpenVINO's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Exception from" not in line), str(error))


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ModelError(f"{NAME} is not installed", cure="pip install openvino") from error
