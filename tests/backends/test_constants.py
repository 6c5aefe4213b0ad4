"""Stored int8 and uint8 tensors where an activation is expected, such as positional embeddings."""

from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import build
from planish.ir import Graph, OperatorError

planish, aten = torch.ops.planish, torch.ops.aten
TARGETS = ("x86-64-v3", "native")


def run_both(graph: Graph, target: str, *inputs: torch.Tensor) -> None:
    artifact = build(graph, target)
    for want, have in zip(graph(*inputs), artifact(*[x.numpy() for x in inputs]), strict=True):
        assert np.array_equal(want.numpy(), have)


@pytest.mark.parametrize("target", TARGETS)
def test_constants_are_added_moved_and_looked_up(builder: Any, target: str) -> None:
    b = builder(1)
    x = b.input(torch.uint8, (2, 5, 11))
    image = b.input(torch.int8, (2, 6, 3, 4))
    position = b.stored(b.values(torch.int8, (5, 11)))
    token = b.stored(b.values(torch.uint8, (1, 1, 11)))
    channels = b.stored(b.values(torch.int8, (6, 1, 1)))
    one = b.stored(b.values(torch.int8, ()))
    rest = (-3, 900, 1500, 10, 7, 0, 255, torch.uint8)
    tokens = b.call(aten.cat.default, [b.call(aten.expand.default, token, [2, 1, 11]), x], 1)
    graph = b.finish(
        b.call(planish.add_i8.default, x, position, 5, *rest),
        b.call(planish.add_i8.default, x, one, 5, *rest),
        b.call(planish.add_i8.default, image, channels, 5, *rest),
        b.call(planish.table_i8.default, position, b.stored(b.values(torch.int8, (256,)))),
        b.call(planish.dequantize.default, position, 0.5, 3),
        b.call(aten.permute.default, position, [1, 0]),
        tokens,
    )
    run_both(graph, target, b.values(torch.uint8, (2, 5, 11)), b.values(torch.int8, (2, 6, 3, 4)))


def test_a_float_constant_is_refused(builder: Any) -> None:
    b = builder(2)
    x, scale = b.input(torch.uint8, (1, 4)), b.stored(torch.ones(4))
    rest = (0, 900, 1500, 10, 7, 0, 255, torch.uint8)
    graph = b.finish(b.call(planish.add_i8.default, x, scale, 5, *rest))
    with pytest.raises(OperatorError, match=r"stored as float32.*where a kernel needs quantized"):
        build(graph, "x86-64-v3")
