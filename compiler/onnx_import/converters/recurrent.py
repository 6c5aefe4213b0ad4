"""Converters of RNN, GRU and LSTM: unrolled over time, the input's part in one linear layer.

The projection of all steps is one matrix product; each step then adds what the hidden state
gives. A state of zeros at the start is left out, so that an open batch stays open.
Gate order and formulas: the ONNX specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..call import Call
from ..registry import converts
from ..values import Constant, Operand, Value
from .elementwise import add, subtract

aten = torch.ops.aten
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_LONGEST = 4096

Activation = Callable[[Operand], Operand]


@dataclass
class _Direction:
    """The weights of one direction, and the state that it starts with (None: zeros)."""

    projected: Operand  # [steps, batch, gates * hidden], the bias included
    recurrent: Operand  # [gates * hidden, hidden]
    recurrent_bias: Operand | None  # [hidden] of a GRU's third gate, where it is apart
    peepholes: list[Operand]  # [hidden] each: input, output, forget
    hidden: Operand | None
    cell: Operand | None
    activations: list[Activation]


@converts("RNN", "GRU", "LSTM", since=7)
def convert_recurrent(call: Call) -> list[Value | None]:
    x, weight = call.operand(0), call.parameter(1)
    by_batch = call.flag("layout")
    if by_batch:
        x = call.emit(aten.permute.default, x, [1, 0, 2])
    steps = call.fixed(x, 0)
    if steps > _LONGEST:
        raise call.refuse(f"has {steps} steps; at most {_LONGEST} are unrolled")
    names = call.text("direction", "forward")
    directions = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(names)
    if directions is None or call.fixed(weight, 0) != len(directions):
        raise call.refuse(f"has the direction {names!r} for {call.fixed(weight, 0)} weights")
    masks = _masks(call, x, steps)
    outputs: list[Operand] = []
    hiddens: list[Operand] = []
    cells: list[Operand] = []
    for index, backwards in enumerate(directions):
        state = _direction(call, x, index)
        made, hidden, cell = _unrolled(call, state, steps, backwards, masks)
        outputs.append(made)
        hiddens.append(call.emit(aten.unsqueeze.default, hidden, 0))
        if cell is not None:
            cells.append(call.emit(aten.unsqueeze.default, cell, 0))
    y = call.emit(aten.cat.default, outputs, 1)
    ends = [call.emit(aten.cat.default, parts, 0) for parts in (hiddens, cells) if parts]
    if by_batch:
        y = call.emit(aten.permute.default, y, [2, 0, 1, 3])
        ends = [call.emit(aten.permute.default, end, [1, 0, 2]) for end in ends]
    return [y, *ends]


def _direction(call: Call, x: Operand, index: int) -> _Direction:
    kind = call.operator
    gates = _GATES[kind]
    weight, recurrent = (
        call.emit(aten.select.int, call.parameter(place), 0, index) for place in (1, 2)
    )
    size = call.fixed(recurrent, 1)
    if call.fixed(weight, 0) != gates * size or call.fixed(recurrent, 0) != gates * size:
        raise call.refuse(f"has weights that don't fit a hidden size of {size}")
    bias, apart = _biases(call, index, gates, size)
    projected = call.emit(aten.linear.default, x, weight, bias)
    peepholes = []
    if kind == "LSTM" and call.has(7):
        whole = call.emit(aten.select.int, call.parameter(7), 0, index)
        peepholes = [_part(call, whole, 0, gate, size) for gate in range(3)]
    states = [_initial(call, place, index) for place in (5, 6)]
    return _Direction(
        projected,
        recurrent,
        apart,
        peepholes,
        states[0],
        states[1] if kind == "LSTM" else None,
        _activations(call, index),
    )


def _biases(call: Call, index: int, gates: int, size: int) -> tuple[Operand | None, Operand | None]:
    """Return the projection's bias, and the part of a GRU's that the reset gate scales."""
    if not call.has(3):
        return None, None
    whole = call.emit(aten.select.int, call.parameter(3), 0, index)
    first = call.emit(aten.slice.Tensor, whole, 0, 0, gates * size, 1)
    second = call.emit(aten.slice.Tensor, whole, 0, gates * size, 2 * gates * size, 1)
    if call.operator != "GRU" or not call.flag("linear_before_reset"):
        return add(call, first, second), None
    # Only the first two gates' biases may be added up front.
    head = add(
        call,
        call.emit(aten.slice.Tensor, first, 0, 0, 2 * size, 1),
        call.emit(aten.slice.Tensor, second, 0, 0, 2 * size, 1),
    )
    tail = _part(call, first, 0, 2, size)
    return call.emit(aten.cat.default, [head, tail], 0), _part(call, second, 0, 2, size)


def _initial(call: Call, place: int, index: int) -> Operand | None:
    if not call.has(place):
        return None
    state = call.operand(place)
    if isinstance(state, Constant) and not bool(state.tensor.any()):
        return None
    return call.emit(aten.select.int, state, 1 if call.flag("layout") else 0, index)


def _masks(call: Call, x: Operand, steps: int) -> list[torch.Tensor] | None:
    """Return which sequences still run at each step, where they differ in length."""
    if not call.has(4):
        return None
    lengths = torch.tensor(call.whole(4))
    if bool((lengths == steps).all()):
        return None
    if len(lengths) != call.fixed(x, 1):
        raise call.refuse(f"has {len(lengths)} lengths for {call.fixed(x, 1)} sequences")
    return [(lengths > step)[:, None] for step in range(steps)]


def _unrolled(
    call: Call, state: _Direction, steps: int, backwards: bool, masks: list[torch.Tensor] | None
) -> tuple[Operand, Operand, Operand | None]:
    """Return the hidden states [steps, 1, batch, hidden], the last one, and the last cell."""
    hidden, cell = state.hidden, state.cell
    made: list[Operand | None] = [None] * steps
    step_of = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}[call.operator]
    for step in reversed(range(steps)) if backwards else range(steps):
        x = call.emit(aten.select.int, state.projected, 0, step)
        fresh, new_cell = step_of(call, state, x, hidden, cell)
        shown = fresh
        if masks is not None and not bool(masks[step].all()):
            mask = call.make(masks[step], f"running{step}")
            zero = call.emit(aten.mul.Tensor, fresh, 0.0)
            shown = call.emit(aten.where.self, mask, fresh, zero)
            fresh = call.emit(aten.where.self, mask, fresh, zero if hidden is None else hidden)
            if new_cell is not None:
                kept = zero if cell is None else cell
                new_cell = call.emit(aten.where.self, mask, new_cell, kept)
        hidden, cell = fresh, new_cell
        made[step] = call.emit(
            aten.unsqueeze.default, call.emit(aten.unsqueeze.default, shown, 0), 0
        )
    if hidden is None:
        raise call.refuse("has no steps")
    return call.emit(aten.cat.default, made, 0), hidden, cell


def _part(call: Call, x: Operand, axis: int, gate: int, size: int) -> Operand:
    return call.emit(aten.slice.Tensor, x, axis, gate * size, (gate + 1) * size, 1)


def _gate_sums(
    call: Call, state: _Direction, x: Operand, hidden: Operand | None
) -> tuple[list[Operand], int]:
    """Return what each gate adds up, before its activation."""
    size = call.fixed(state.recurrent, 1)
    if hidden is not None:
        x = add(call, x, call.emit(aten.linear.default, hidden, state.recurrent, None))
    return [_part(call, x, 1, gate, size) for gate in range(_GATES[call.operator])], size


def _rnn_step(
    call: Call, state: _Direction, x: Operand, hidden: Operand | None, cell: Operand | None
) -> tuple[Operand, Operand | None]:
    if hidden is not None:
        x = add(call, x, call.emit(aten.linear.default, hidden, state.recurrent, None))
    return state.activations[0](x), cell


def _gru_step(
    call: Call, state: _Direction, x: Operand, hidden: Operand | None, cell: Operand | None
) -> tuple[Operand, Operand | None]:
    size = call.fixed(state.recurrent, 1)
    inner, outer = state.activations
    parts = [_part(call, x, 1, gate, size) for gate in range(3)]
    weights = [_part(call, state.recurrent, 0, gate, size) for gate in range(3)]
    if hidden is not None:
        for gate in (0, 1):
            given = call.emit(aten.linear.default, hidden, weights[gate], None)
            parts[gate] = add(call, parts[gate], given)
    update, reset = inner(parts[0]), inner(parts[1])
    fresh = parts[2]
    if call.flag("linear_before_reset"):
        given = state.recurrent_bias
        if hidden is not None:
            given = call.emit(aten.linear.default, hidden, weights[2], given)
        if given is not None:
            fresh = add(call, fresh, call.emit(aten.mul.Tensor, reset, given))
    elif hidden is not None:
        kept = call.emit(aten.mul.Tensor, reset, hidden)
        fresh = add(call, fresh, call.emit(aten.linear.default, kept, weights[2], None))
    fresh = outer(fresh)
    # (1 - z) * n + z * h
    y = subtract(call, fresh, call.emit(aten.mul.Tensor, update, fresh))
    return (y if hidden is None else add(call, y, call.emit(aten.mul.Tensor, update, hidden))), cell


def _lstm_step(
    call: Call, state: _Direction, x: Operand, hidden: Operand | None, cell: Operand | None
) -> tuple[Operand, Operand | None]:
    (enter, leave, forget, fresh), _ = _gate_sums(call, state, x, hidden)
    inner, middle, outer = state.activations
    if state.peepholes and cell is not None:
        enter = add(call, enter, call.emit(aten.mul.Tensor, cell, state.peepholes[0]))
        forget = add(call, forget, call.emit(aten.mul.Tensor, cell, state.peepholes[2]))
    opened = inner(enter)
    held = call.emit(aten.mul.Tensor, opened, middle(fresh))
    if cell is not None:
        if call.flag("input_forget"):
            gate = add(call, call.emit(aten.neg.default, opened), call.make(torch.tensor(1.0)))
        else:
            gate = inner(forget)
        held = add(call, call.emit(aten.mul.Tensor, gate, cell), held)
    if state.peepholes:
        leave = add(call, leave, call.emit(aten.mul.Tensor, held, state.peepholes[1]))
    return call.emit(aten.mul.Tensor, inner(leave), outer(held)), held


def _activations(call: Call, index: int) -> list[Activation]:
    """Return a direction's activation functions, clipped before where the node says so."""
    own = _ACTIVATIONS[call.operator]
    names = call.texts("activations", own * (index + 1))
    chosen = names[index * len(own) : (index + 1) * len(own)]
    alphas = call.numbers("activation_alpha", [])
    betas = call.numbers("activation_beta", [])
    if len(chosen) != len(own):
        raise call.refuse(f"has {len(names)} activations")
    bound = call.number("clip", 0.0)
    taken = [_takes(name) for name in names]
    made: list[Activation] = []
    for place in range(index * len(own), (index + 1) * len(own)):
        first = sum(t[0] for t in taken[:place])
        second = sum(t[1] for t in taken[:place])
        alpha = alphas[first] if taken[place][0] and first < len(alphas) else None
        beta = betas[second] if taken[place][1] and second < len(betas) else None
        made.append(_activation(call, names[place], alpha, beta, bound))
    return made


def _takes(name: str) -> tuple[bool, bool]:
    """Whether an activation takes alpha, and beta."""
    return (
        name in ("Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"),
        name in ("Affine", "ScaledTanh", "HardSigmoid"),
    )


def _activation(
    call: Call, name: str, alpha: float | None, beta: float | None, bound: float
) -> Activation:
    def number(given: float | None, default: float) -> float:
        return default if given is None else given

    simple: dict[str, tuple[Any, ...]] = {
        "Sigmoid": (aten.sigmoid.default,),
        "Tanh": (aten.tanh.default,),
        "Relu": (aten.relu.default,),
        "Softplus": (aten.softplus.default,),
        "LeakyRelu": (aten.leaky_relu.default, number(alpha, 0.01)),
        "Elu": (aten.elu.default, number(alpha, 1.0)),
        "ThresholdedRelu": (aten.threshold.default, number(alpha, 1.0), 0.0),
    }
    if name not in simple and name not in ("HardSigmoid", "Affine"):
        raise call.refuse(f"has the activation {name!r}, which is not supported")

    def apply(x: Operand) -> Operand:
        if bound:
            x = call.emit(aten.clamp.default, x, -bound, bound)
        if name in simple:
            target, *rest = simple[name]
            return call.emit(target, x, *rest)
        hard = name == "HardSigmoid"
        y = call.emit(aten.mul.Tensor, x, number(alpha, 0.2 if hard else 1.0))
        y = call.emit(aten.add.Tensor, y, number(beta, 0.5 if hard else 0.0))
        return call.emit(aten.clamp.default, y, 0.0, 1.0) if hard else y

    return apply
