"""Rows by number: embedding and index_select with indices that are computed or given."""

from __future__ import annotations

from math import prod

import torch.fx

from planish.ir.errors import OperatorError
from planish.ir.ops import arguments
from planish.ir.signature import dtype_name

from ..kernels import Kernel
from ..layout import as_matrix, row_layout
from ..lowering import Lowering
from ..plan import Parameter
from ..value import Value
from .movement import move


def embedding(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower embedding on a stored uint8 or int8 table [rows, features]."""
    values = arguments(node)
    table = values["weight"]
    if table.op != "get_attr":
        raise OperatorError(
            "an embedding's table has to be stored", where=lowering.label(node), cure="store it"
        )
    rows, features = lowering.shape(table)
    layout = row_layout(lowering.shape(node), lowering.plan.target.storage_dtype)
    y = lowering.new_integer(node, layout)
    matrix = as_matrix(layout)
    assert matrix is not None
    stored = lowering.plan.parameter("raw", tensor=lowering.stored(table))
    count, step = matrix.shape[0], matrix.steps[0]
    sizes = [1, count, features, rows, 0, features, 0, step, y.shift]
    dtype = dtype_name(table.meta["val"].dtype)
    _take(lowering, node, stored, dtype, y, _indices(lowering, values["indices"]), sizes)


def index_select(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower index_select: stored indices are a movement, others are looked up as they come."""
    values = arguments(node)
    x, index = values["self"], values["index"]
    if index.op == "get_attr":
        move(lowering, node)
        return
    source, y = lowering.dense(x), lowering.new_dense(node)
    shape = source.layout.shape
    axis = int(values["dim"]) % len(shape)
    outer, inner = prod(shape[:axis]), prod(shape[axis + 1 :])
    count = lowering.shape(index)[0]
    sizes = [outer, count, inner, shape[axis], shape[axis] * inner, inner, count * inner, inner, 0]
    _take(lowering, node, source, source.layout.dtype, y, _indices(lowering, index), sizes)


def _indices(lowering: Lowering, node: torch.fx.Node) -> tuple[Value | Parameter, str]:
    dtype = dtype_name(node.meta["val"].dtype)
    if node.op == "get_attr":
        return lowering.plan.parameter("raw", tensor=lowering.stored(node)), dtype
    return lowering.dense(node), dtype


def _take(
    lowering: Lowering,
    node: torch.fx.Node,
    x: Value | Parameter,
    x_dtype: str,
    y: Value,
    indices: tuple[Value | Parameter, str],
    sizes: list[int],
) -> None:
    read, dtype = indices
    kernel = Kernel.of("take", x_dtype=x_dtype, y_dtype=y.layout.dtype, index_dtype=dtype)
    lowering.plan.call(kernel, [x, y, read], sizes, lowering.label(node))
