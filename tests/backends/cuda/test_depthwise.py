"""Depthwise layers for GPUs, emulated, equal an exact formula value for value."""

from typing import Any

import numpy as np
import pytest

CASES: dict[str, dict[str, Any]] = {
    "3 x 3": {"channels": 24, "padding": (1, 1, 1, 1), "size": (7, 9)},
    "stride, odd channels": {"channels": 13, "stride": (2, 2), "size": (9, 11), "images": 2},
    "5 x 5": {"channels": 8, "kernel": (5, 5), "size": (8, 7), "padding": (2, 2, 2, 2)},
    "dilation": {"channels": 5, "kernel": (3, 2), "dilation": (2, 3), "size": (9, 9)},
    "one row": {"channels": 16, "kernel": (1, 4), "size": (3, 5), "extremes": True},
    "one pixel": {"channels": 3, "size": (3, 3), "spread": 1e5},
}


def case(name: str) -> dict[str, Any]:
    channels = CASES[name]["channels"]
    return {**CASES[name], "out": channels, "groups": channels}


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_exact(layer_case: Any, emulated_layer: Any, name: str) -> None:
    made = emulated_layer(layer_case(**case(name)), "sm_61", seed=len(name))
    assert np.array_equal(made.run(made.steps("cuda-depthwise")), made.expected())


@pytest.mark.parametrize("columns", [1, 2, 4, 8])
def test_every_number_of_columns_is_exact(
    layer_case: Any, emulated_layer: Any, columns: int
) -> None:
    made = emulated_layer(layer_case(**{**case("3 x 3"), "stride": (1, 2), "size": (4, 21)}), "sm_90")
    steps = made.steps("cuda-depthwise", {"columns": columns})
    assert np.array_equal(made.run(steps), made.expected())
