"""Dense layers for GPUs, emulated thread by thread, equal an exact formula value for value."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from planish.backends.cuda.tiles import Tile
from planish.backends.lower.layer import find_strategy

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
    "linear": {"linear": True, "images": 5, "channels": 70, "size": (1, 1), "kernel": (1, 1), "out": 37},
    "pointwise with an addition": {
        "channels": 40, "size": (9, 9), "kernel": (1, 1), "out": 48, "residual": True,
    },
    "addition of few channels": {"channels": 16, "out": 12, "residual": True},
    "extremes": {"channels": 64, "extremes": True, "spread": 0.01},
    "products that reach 2**31": {"channels": 16, "extremes": True, "spread": 1e5},
    "float": {"channels": 20, "size": (4, 5), "out": 13, "real": True},
}  # fmt: skip


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_exact(layer_case: Any, emulated_layer: Any, name: str, arch: str) -> None:
    made = emulated_layer(layer_case(**CASES[name]), arch, seed=len(name))
    got = made.run(made.steps("cuda-dense"))
    assert np.array_equal(got, made.expected())
