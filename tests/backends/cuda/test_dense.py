"""Dense layers for GPUs, emulated thread by thread, equal an exact formula value for value."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from planish.backends.cuda.nvrtc import compile_cubin
from planish.backends.cuda.source import cuda_source, prelude
from planish.backends.cuda.tiles import Tile
from planish.backends.lower.cuda_tiles import SHAPES
from planish.backends.lower.strategies import find_strategy

ARCHITECTURES = ("sm_61", "sm_75", "sm_80", "sm_90")
CASES: dict[str, dict[str, Any]] = {
    "padding": {"channels": 16, "size": (7, 9), "out": 40, "padding": (1, 1, 1, 1)},
    "8 channels, uneven padding": {"channels": 8, "padding": (0, 2, 1, 0), "out": 9},
    "stride, several images": {"images": 3, "channels": 24, "size": (9, 8), "stride": (2, 2)},
    "dilation": {"channels": 5, "size": (9, 9), "dilation": (2, 3), "out": 33},
    "image of 3 channels": {
        "channels": 3, "size": (13, 11), "kernel": (7, 7), "stride": (2, 2),
        "padding": (3, 3, 3, 3), "compact": True, "out": 16,
    },
    "1 channel": {"channels": 1, "kernel": (5, 2), "compact": True, "out": 1, "images": 2},
    "groups": {"channels": 32, "groups": 4, "out": 64, "padding": (1, 1, 1, 1)},
    "groups of odd channels": {"channels": 9, "groups": 3, "out": 15, "kernel": (2, 3)},
    "linear": {
        "linear": True, "images": 5, "channels": 70, "size": (1, 1), "kernel": (1, 1), "out": 37,
    },
    "pointwise with an addition": {
        "channels": 40, "size": (9, 9), "kernel": (1, 1), "out": 48, "residual": True,
    },
    "addition of few channels": {"channels": 16, "out": 12, "residual": True},
    "extremes": {"channels": 64, "extremes": True, "spread": 0.01},
    "products that reach 2**31": {"channels": 16, "extremes": True, "spread": 1e5},
    "float": {"channels": 20, "size": (4, 5), "out": 13, "real": True},
}  # fmt: skip


Results = dict[str, tuple[Any, Any]]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def results(request: pytest.FixtureRequest, layer_of: Any, run_layers: Any) -> Results:
    """What each case's kernels give, and what is right."""
    layers = [
        layer_of(request.param, seed, **shape).emit("cuda-dense")
        for seed, shape in enumerate(CASES.values())
    ]
    return dict(zip(CASES, run_layers(layers), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_exact(results: Results, name: str) -> None:
    got, want = results[name]
    assert np.array_equal(got, want)


def tiles(instruction: str, stages: Sequence[int] = (2,)) -> list[Tile]:
    """A tile of each shape, with different depths and stages."""
    return [
        Tile(instruction, *part, (32, 64)[i % 2], stages[i % len(stages)], slices)
        for i, part, slices in ((i, s[:4], s[4]) for i, s in enumerate(SHAPES[instruction]))
    ]


@pytest.mark.parametrize("arch", ["sm_61", "sm_75", "sm_80"])
def test_every_tile_is_exact_in_any_order_of_threads(
    layer_of: Any, run_layers: Any, arch: str
) -> None:
    shape = {"channels": 24, "size": (13, 11), "out": 72, "padding": (1, 0, 1, 1), "residual": True}
    chosen = {
        "sm_61": tiles("dp4a")[::2],
        "sm_75": tiles("mma-s8")[::3],
        "sm_80": tiles("mma-s8", (2, 3, 4))[1::2],
    }[arch]
    layers = [
        layer_of(arch, i, **shape).emit("cuda-dense", asdict(t)) for i, t in enumerate(chosen)
    ]
    for tile, (got, want) in zip(chosen, run_layers(layers, backwards=True), strict=True):
        assert np.array_equal(got, want), tile


@pytest.mark.parametrize("tile", [t for name in SHAPES for t in tiles(name)])
def test_neighbouring_rows_of_a_tile_meet_in_no_bank(tile: Tile) -> None:
    for piece in range(tile.pieces):
        places = [row * tile.pieces + (piece ^ tile.swizzle(row)) for row in range(8)]
        assert len({place % 8 for place in places}) == 8


@pytest.mark.parametrize("tile", [t for name in SHAPES for t in tiles(name)])
def test_every_channel_of_a_tile_has_a_row(tile: Tile) -> None:
    assert sorted(tile.channel_order()) == list(range(tile.channels))


def test_small_layers_get_small_tiles(layer_of: Any) -> None:
    """A layer that one large tile would cover is shared between blocks."""
    large = layer_of("sm_80", images=8, channels=64, size=(58, 58), out=256)
    small = layer_of("sm_80", channels=256, size=(9, 9), out=256)
    strategy = find_strategy("cuda-dense")
    sizes = [
        knobs["pixels"] * knobs["channels"]
        for layer in (large, small)
        for knobs in strategy.knobs(layer.layer, layer.plan)[:1]
    ]
    assert sizes[0] > sizes[1]


LARGE: list[dict[str, Any]] = [
    {"images": 8, "channels": 64, "size": (58, 58), "out": 256, "residual": True},
    {"channels": 256, "size": (16, 16), "out": 256},
    {
        "channels": 3,
        "size": (230, 230),
        "kernel": (7, 7),
        "stride": (2, 2),
        "out": 64,
        "compact": True,
    },
    {"linear": True, "images": 197, "channels": 768, "size": (1, 1), "kernel": (1, 1), "out": 3072},
]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_layers_of_real_networks_keep_their_sums_in_registers(layer_of: Any, arch: str) -> None:
    pytest.importorskip("nvidia.cuda_nvrtc", reason="nvidia-cuda-nvrtc-cu12 is not installed")
    kernels = [layer_of(arch, **shape).emit("cuda-dense").plan.steps[0].kernel for shape in LARGE]
    functions = {f"kernel{i}": kernel.function() for i, kernel in enumerate(kernels)}
    source, _ = cuda_source(functions, arch)
    for name, taken in compile_cubin(prelude() + source, arch).resources.items():
        assert (taken.spilled, taken.stack) == (0, 0), name


def random_shape(random: np.random.Generator) -> dict[str, Any]:
    """A layer of any kind, small enough for the emulator."""

    def number(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    groups = (1, 1, 1, 2, 5)[number(0, 4)]
    kernel, dilation = (number(1, 4), number(1, 4)), (number(1, 2), number(1, 2))
    padding = tuple(number(0, 3) for _ in range(4))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(max(reach[i] - padding[i] - padding[2 + i], 1) + number(0, 9) for i in (0, 1))
    real = number(0, 9) == 0
    return {
        "images": number(1, 3), "channels": number(1, 70) * groups, "out": number(1, 90) * groups,
        "size": size, "kernel": kernel, "stride": (number(1, 3), number(1, 3)),
        "dilation": dilation, "padding": padding, "groups": groups, "compact": groups == 1,
        "real": real, "residual": not real and number(0, 2) == 0,
        "extremes": number(0, 5) == 0, "spread": (0.2, 1.0, 1000.0)[number(0, 2)],
    }  # fmt: skip


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_random_layers_are_exact(layer_of: Any, run_layers: Any, arch: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    shapes = [random_shape(random) for _ in range(12)]
    layers = [layer_of(arch, seed + i, **shape) for i, shape in enumerate(shapes)]
    for layer in layers:
        offered = find_strategy("cuda-dense").knobs(layer.layer, layer.plan)
        layer.emit("cuda-dense", offered[int(random.integers(len(offered)))])
    for shape, (got, want) in zip(shapes, run_layers(layers, backwards=seed % 2 == 1), strict=True):
        assert np.array_equal(got, want), shape
