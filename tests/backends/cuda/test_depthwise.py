"""Depthwise layers for GPUs, emulated, equal an exact formula value for value."""

from typing import Any

import numpy as np
import pytest

from planish.backends.lower.strategies import find_strategy

CASES: dict[str, dict[str, Any]] = {
    "3 x 3": {"channels": 24, "padding": (1, 1, 1, 1), "size": (7, 9)},
    "stride, odd channels": {"channels": 13, "stride": (2, 2), "size": (9, 11), "images": 2},
    "5 x 5": {"channels": 8, "kernel": (5, 5), "size": (8, 7), "padding": (2, 2, 2, 2)},
    "dilation": {"channels": 5, "kernel": (3, 2), "dilation": (2, 3), "size": (9, 9)},
    "one row": {"channels": 16, "kernel": (1, 4), "size": (3, 5), "extremes": True},
    "one pixel": {"channels": 3, "size": (3, 3), "spread": 1e5},
}


COLUMNS = (1, 2, 4, 8)


def shape_of(name: str) -> dict[str, Any]:
    channels = CASES[name]["channels"]
    return {**CASES[name], "out": channels, "groups": channels}


@pytest.mark.parametrize("arch", ["sm_61", "sm_80"])
def test_layers_are_exact(layer_of: Any, run_layers: Any, arch: str) -> None:
    layers = [
        layer_of(arch, seed, **shape_of(name)).emit("cuda-depthwise")
        for seed, name in enumerate(CASES)
    ]
    for name, (got, want) in zip(CASES, run_layers(layers), strict=True):
        assert np.array_equal(got, want), name


def test_any_number_of_columns_is_exact(layer_of: Any, run_layers: Any) -> None:
    shape = {**shape_of("3 x 3"), "stride": (1, 2), "size": (4, 21)}
    layers = [layer_of("sm_90", n, **shape).emit("cuda-depthwise", {"columns": n}) for n in COLUMNS]
    for columns, (got, want) in zip(COLUMNS, run_layers(layers, backwards=True), strict=True):
        assert np.array_equal(got, want), columns


def test_large_kernels_are_not_written_out_for_many_pixels(layer_of: Any) -> None:
    """NVIDIA's assembler takes minutes for 300 dot products and more."""
    shape = {"channels": 8, "groups": 8, "out": 8, "size": (30, 30)}
    most: list[int] = []
    for kernel in ((3, 3), (5, 5), (7, 7)):
        made = layer_of("sm_80", kernel=kernel, **shape)
        knobs = find_strategy("cuda-depthwise").knobs(made.layer, made.plan)
        most.append(max(setting["columns"] for setting in knobs))
    assert most == [8, 4, 2]


def test_what_it_does_not_fit(layer_of: Any) -> None:
    """Large kernels, whose weights would not stay in registers, and layers of other kinds."""
    large = {"channels": 8, "groups": 8, "out": 8, "size": (20, 20), "kernel": (13, 13)}
    dense = {"channels": 8, "out": 8}
    for shape in (large, dense):
        made = layer_of("sm_80", **shape)
        assert not find_strategy("cuda-depthwise").fits(made.layer, made.plan)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("arch", ["sm_61", "sm_75", "sm_80", "sm_90"])
def test_random_layers_are_exact(layer_of: Any, run_layers: Any, arch: str, seed: int) -> None:
    random = np.random.default_rng(seed)

    def number(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    shapes: list[dict[str, Any]] = []
    for _ in range(8):
        channels = number(2, 50)
        shapes.append(
            {
                "channels": channels, "groups": channels, "out": channels, "images": number(1, 2),
                "kernel": (number(1, 6), number(1, 6)), "size": (number(11, 15), number(11, 15)),
                "stride": (number(1, 3), number(1, 3)), "dilation": (number(1, 2), number(1, 2)),
                "padding": tuple(number(0, 2) for _ in range(4)),
                "extremes": number(0, 3) == 0, "spread": (1.0, 1e5)[number(0, 1)],
            }
        )  # fmt: skip
    layers = [
        layer_of(arch, seed + i, **shape).emit("cuda-depthwise") for i, shape in enumerate(shapes)
    ]
    for shape, (got, want) in zip(shapes, run_layers(layers, backwards=seed % 2 == 1), strict=True):
        assert np.array_equal(got, want), shape
