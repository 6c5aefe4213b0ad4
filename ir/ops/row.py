"""What a row of the operator table says, and the table itself."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..errors import OperatorError
from ..level import Level
from .arguments import arguments

FLOAT_LEVELS = frozenset({Level.CANONICAL, Level.QUANTIZED, Level.INTEGER})
INTEGER_ONLY = frozenset({Level.INTEGER})


class Channels(enum.Enum):
    """How channels (axis 1, or the last axis of a linear layer) flow through an operator.

    PRODUCES: new channels, made by a weight: conv2d, linear. TIES: output channel c is made of
    channel c of every input, whatever the axis. POOLS: TIES for images [N, C, H, W], mixing values
    within each channel. NORMALIZES: TIES on axis 1, with one entry a channel in each parameter.
    CONCATENATES: the inputs' channels one after the other. FLATTENS: each channel becomes a run
    of consecutive features. FIXED: mixes channels, or moves them in a way that pruning can't
    follow, so that none of its inputs may lose one.
    """

    PRODUCES = "produces"
    TIES = "ties"
    POOLS = "pools"
    NORMALIZES = "normalizes"
    CONCATENATES = "concatenates"
    FLATTENS = "flattens"
    FIXED = "fixed"


class Quantization(enum.Enum):
    """What an operator becomes on the integer level.

    INTEGER: an integer operator with an output scale of its own. SAME_SCALE: moves or selects
    values, so that inputs and output share one scale. CLAMP: a clamp that fuses into what
    produces its input. TABLE: a function of one value: a 256-entry table. FLOAT: stays in float.
    """

    INTEGER = "integer"
    SAME_SCALE = "same scale"
    CLAMP = "clamp"
    TABLE = "table"
    FLOAT = "float"


@dataclass(frozen=True)
class OperatorRow:
    """Everything that planish knows about one operator.

    Attributes:
        name: The operator's name in reports: "conv2d".
        targets: The torch overloads that mean it.
        channels: How channels flow through it.
        quantization: What it becomes on the integer level.
        onnx: The ONNX operator types that mean it.
        inputs: Schema names of the activations, in order.
        parameters: Schema name of each stored tensor with one entry a channel, and the axis that
            holds the output channels.
        macs: Multiply-accumulates of a node for one sample, or None where it has none.
        bounds: For CLAMP, the real bounds of a node.
        follows_mode: Schema name of the flag that train() and eval() set, if any.
        levels: The levels that may hold it.
        with_number: What it becomes where one operand is a number, not a tensor: `x * 0.5` is a
            function of one value, TABLE. None where that makes no difference.
        integer_name: The integer operator that it lowers to, for reports.
    """

    name: str
    targets: tuple[Any, ...]
    channels: Channels
    quantization: Quantization
    onnx: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("input",)
    parameters: tuple[tuple[str, int], ...] = ()
    macs: Callable[[fx.Node], int] | None = None
    bounds: Callable[[fx.Node], tuple[float, float]] | None = None
    follows_mode: str | None = None
    levels: frozenset[Level] = FLOAT_LEVELS
    integer_name: str | None = None
    with_number: Quantization | None = None


_TABLE: dict[Any, OperatorRow] = {}


def register(row: OperatorRow) -> OperatorRow:
    """Add a row to the table; the way to teach planish an operator of your own.

    Raises:
        OperatorError: One of its overloads already has a row.
    """
    for target in row.targets:
        if target in _TABLE:
            raise OperatorError(f"operator {target} already has a row: {_TABLE[target].name!r}")
    for target in row.targets:
        _TABLE[target] = row
    return row


def has_row(target: Any) -> bool:
    """Whether an overload has a row."""
    return target in _TABLE


def rows() -> list[OperatorRow]:
    """Return every row once, in the order of registration."""
    return list(dict.fromkeys(_TABLE.values()))


def row(node: fx.Node) -> OperatorRow:
    """Return the row of a node's operator.

    Raises:
        OperatorError: There is none; the error names node and operator.
    """
    found = _TABLE.get(node.target)
    if found is None:
        from ..origin import get_origin

        raise OperatorError(
            f"operator {node.target} has no row in the operator table",
            where=f"node {node.name!r}, {get_origin(node)}",
            cure="register one: planish.ir.register(OperatorRow(...)), docs/add-an-operator.md",
        )
    return found


def quantization(node: fx.Node) -> Quantization:
    """What a node becomes on the integer level, by its row and the kind of its operands.

    Raises:
        OperatorError: The node's operator has no row.
    """
    found = row(node)
    if found.with_number is not None:
        known = arguments(node)
        if any(isinstance(known[name], int | float) for name in found.inputs):
            return found.with_number
    return found.quantization


def node_macs(node: fx.Node) -> int:
    """Multiply-accumulates of a node for one sample; 0 for what has no row or no MACs."""
    found = _TABLE.get(node.target)
    return found.macs(node) if found is not None and found.macs is not None else 0


def is_overload(target: Any) -> bool:
    """Whether a call_function target is a torch operator (not a Python function)."""
    return isinstance(target, torch._ops.OpOverload)
