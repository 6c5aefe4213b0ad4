"""LSTM, GRU and plain recurrent layers, unrolled over their steps.

The input's products are one linear layer over all steps; each step adds the product of the state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from planish.ir.errors import OperatorError
from planish.ir.graph import Graph
from planish.ir.ops import arguments
from planish.ir.origin import get_origin

from .rewriting import Rewriter, is_call, is_unpacked, looks_at, rank, tensor_name

aten = torch.ops.aten

# A state is (hidden,) or (hidden, cell); None stands for zeros.
State = tuple[fx.Node | None, ...]


@dataclass(frozen=True)
class _Weights:
    """One direction of one layer: weight_ih, weight_hh, bias_ih, bias_hh, weight_hr."""

    input: fx.Node
    hidden: fx.Node
    input_bias: fx.Node | None
    hidden_bias: fx.Node | None
    projection: fx.Node | None

    @property
    def biases(self) -> tuple[fx.Node | None, fx.Node | None]:
        return self.input_bias, self.hidden_bias


class _Cell:
    """The arithmetic of one kind of recurrence."""

    gates: int
    merged: bool = True  # whether the state's bias may be added to the input's

    def __init__(self, rewriter: Rewriter) -> None:
        self.rewriter = rewriter

    def call(self, target: Any, *args: Any) -> fx.Node:
        return self.rewriter.call(target, *args)

    def gate(self, gates: fx.Node, index: int) -> fx.Node:
        """Return one of the gates that lie side by side on the last axis."""
        size = self.rewriter.graph.shape(gates)[-1]
        assert size is not None
        width = size // self.gates
        start = index * width
        return self.call(aten.slice.Tensor, gates, rank(gates) - 1, start, start + width, 1)

    def sum_with_state(self, x: fx.Node, state: fx.Node | None, weights: _Weights) -> fx.Node:
        if state is None:
            return x
        product = self.call(aten.linear.default, state, weights.hidden, None)
        return self.call(aten.add.Tensor, x, product)

    def step(self, x: fx.Node, state: State, weights: _Weights) -> tuple[fx.Node, ...]:
        """Return the next state from the input's product [n, gates * width]."""
        raise NotImplementedError


class _Plain(_Cell):
    """h' = act(W x + U h + b)."""

    gates = 1

    def __init__(self, rewriter: Rewriter, activation: Any) -> None:
        super().__init__(rewriter)
        self.activation = activation

    def step(self, x: fx.Node, state: State, weights: _Weights) -> tuple[fx.Node, ...]:
        return (self.call(self.activation, self.sum_with_state(x, state[0], weights)),)


class _LSTM(_Cell):
    """Hochreiter and Schmidhuber 1997, with forget gates; gates in torch's order i, f, g, o."""

    gates = 4

    def step(self, x: fx.Node, state: State, weights: _Weights) -> tuple[fx.Node, ...]:
        hidden, cell = state
        gates = self.sum_with_state(x, hidden, weights)
        let_in, forget, output = (
            self.call(aten.sigmoid.default, self.gate(gates, index)) for index in (0, 1, 3)
        )
        candidate = self.call(aten.tanh.default, self.gate(gates, 2))
        new = self.call(aten.mul.Tensor, let_in, candidate)
        if cell is not None:
            new = self.call(aten.add.Tensor, self.call(aten.mul.Tensor, forget, cell), new)
        shown = self.call(aten.mul.Tensor, output, self.call(aten.tanh.default, new))
        if weights.projection is not None:
            shown = self.call(aten.linear.default, shown, weights.projection, None)
        return shown, new


class _GRU(_Cell):
    """Cho et al. 2014, the reset gate behind the product; gates in torch's order r, z, n."""

    gates = 3
    merged = False

    def step(self, x: fx.Node, state: State, weights: _Weights) -> tuple[fx.Node, ...]:
        (hidden,) = state
        product: fx.Node | None = None
        if hidden is not None:
            product = self.call(aten.linear.default, hidden, weights.hidden, weights.hidden_bias)
        elif weights.hidden_bias is not None:
            product = weights.hidden_bias
        reset, update = (self._gate_sum(x, product, index) for index in (0, 1))
        reset = self.call(aten.sigmoid.default, reset)
        update = self.call(aten.sigmoid.default, update)
        candidate = self.gate(x, 2)
        if product is not None:
            gated = self.call(aten.mul.Tensor, reset, self.gate(product, 2))
            candidate = self.call(aten.add.Tensor, candidate, gated)
        candidate = self.call(aten.tanh.default, candidate)
        if hidden is None:
            stay = self.call(aten.mul.Tensor, update, candidate)
            return (self.call(aten.sub.Tensor, candidate, stay),)
        change = self.call(aten.sub.Tensor, hidden, candidate)
        moved = self.call(aten.mul.Tensor, update, change)
        return (self.call(aten.add.Tensor, candidate, moved),)

    def _gate_sum(self, x: fx.Node, product: fx.Node | None, index: int) -> fx.Node:
        own = self.gate(x, index)
        if product is None:
            return own
        return self.call(aten.add.Tensor, own, self.gate(product, index))


_LAYERS: dict[Any, Callable[[Rewriter], _Cell]] = {
    aten.lstm.input: _LSTM,
    aten.gru.input: _GRU,
    aten.rnn_tanh.input: lambda rewriter: _Plain(rewriter, aten.tanh.default),
    aten.rnn_relu.input: lambda rewriter: _Plain(rewriter, aten.relu.default),
}
_CELLS: dict[Any, Callable[[Rewriter], _Cell]] = {
    aten.lstm_cell.default: _LSTM,
    aten.gru_cell.default: _GRU,
    aten.rnn_tanh_cell.default: lambda rewriter: _Plain(rewriter, aten.tanh.default),
    aten.rnn_relu_cell.default: lambda rewriter: _Plain(rewriter, aten.relu.default),
}


@looks_at(*_LAYERS)
def unroll(graph: Graph, node: fx.Node) -> bool:
    """lstm, gru, rnn -> one linear layer over all steps, then the steps one after the other.

    Raises:
        OperatorError: The number of steps is open.
    """
    values = arguments(node)
    x: fx.Node = values["input"]
    time = 1 if values["batch_first"] and rank(x) == 3 else 0
    steps = graph.shape(x)[time]
    if steps is None:
        raise OperatorError(
            f"{node.target} over an open number of steps",
            where=str(get_origin(node)),
            cure="capture with a fixed number: export with static shapes, or batch_first=True",
        )
    if not is_unpacked(node):
        return False
    results = _Unrolled(graph, node, values, time, steps).results()
    for user in list(node.users):
        new = results[user.args[1]]  # type: ignore[index]
        user.replace_all_uses_with(new)
        graph.fx.erase_node(user)
    graph.fx.erase_node(node)
    return True


class _Unrolled:
    """The layers and directions of one recurrent module."""

    def __init__(
        self, graph: Graph, node: fx.Node, values: dict[str, Any], time: int, steps: int
    ) -> None:
        self.graph, self.node, self.values = graph, node, values
        self.time, self.steps = time, steps
        self.rewriter = Rewriter(graph, node)
        self.cell = _LAYERS[node.target](self.rewriter)
        self.directions = 2 if values["bidirectional"] else 1
        states = values["hx"] if isinstance(values["hx"], list | tuple) else [values["hx"]]
        self.initial: list[fx.Node] = list(states)
        self.known_zero = [_is_zero(graph, state) for state in self.initial]

    def results(self) -> list[fx.Node]:
        """Return the output of all steps, then the last states [layers * directions, n, width]."""
        x: fx.Node = self.values["input"]
        last: list[tuple[fx.Node, ...]] = []
        for layer in range(self.values["num_layers"]):
            if layer and self.values["dropout"] > 0:
                dropped = (x, self.values["dropout"], False)
                x = self.rewriter.call(aten.dropout.default, *dropped)
            made = [self._direction(x, layer, back) for back in range(self.directions)]
            outputs = [output for output, _ in made]
            x = self._cat(outputs, rank(outputs[0]) - 1)
            last += [state for _, state in made]
        stacked = [
            self._cat([self._unsqueeze(state, 0) for state in states], 0)
            for states in zip(*last, strict=True)
        ]
        return [x, *stacked]

    def _direction(self, x: fx.Node, layer: int, back: int) -> tuple[fx.Node, tuple[fx.Node, ...]]:
        """Return one direction's outputs of all steps, and its last state."""
        place = layer * self.directions + back
        weights = self._weights(place)
        bias = self._bias(weights, place)
        products = self.rewriter.call(aten.linear.default, x, weights.input, bias)
        state: State = tuple(
            None if zero else self.rewriter.call(aten.select.int, initial, 0, place)
            for initial, zero in zip(self.initial, self.known_zero, strict=True)
        )
        shown: list[fx.Node] = []
        for step in range(self.steps)[:: -1 if back else 1]:
            own = self.rewriter.call(aten.select.int, products, self.time, step)
            state = self.cell.step(own, state, weights)
            assert state[0] is not None
            shown.append(self._unsqueeze(state[0], self.time))
        shown = shown[::-1] if back else shown
        return self._cat(shown, self.time), state  # type: ignore[return-value]

    def _weights(self, place: int) -> _Weights:
        params = list(self.values["params"])
        each = len(params) // (self.values["num_layers"] * self.directions)
        own = params[place * each : (place + 1) * each]
        biased = self.values["has_biases"]
        rest = own[4:] if biased else own[2:]
        return _Weights(
            own[0],
            own[1],
            own[2] if biased else None,
            own[3] if biased else None,
            rest[0] if rest else None,
        )

    def _bias(self, weights: _Weights, place: int) -> fx.Node | None:
        """The input's bias; with the state's added where the cell allows that."""
        first, second = weights.biases
        if not self.cell.merged or first is None or second is None:
            return first
        tensors = [self.graph.attribute(str(bias.target)) for bias in (first, second)]
        trainable = any(tensor.requires_grad for tensor in tensors)
        value = (tensors[0] + tensors[1]).detach()
        name = tensor_name(self.node, f"bias_{place}")
        return self.rewriter.store(name, value, trainable=trainable)

    def _unsqueeze(self, x: fx.Node, axis: int) -> fx.Node:
        return self.rewriter.call(aten.unsqueeze.default, x, axis)

    def _cat(self, pieces: list[fx.Node], axis: int) -> fx.Node:
        if len(pieces) == 1:
            return pieces[0]
        return self.rewriter.call(aten.cat.default, pieces, axis)


def _is_zero(graph: Graph, node: fx.Node) -> bool:
    """Whether a state is all zeros: a stored constant, perhaps expanded, or zeros(...)."""
    while is_call(node, aten.expand.default):
        node = node.args[0]
    if is_call(node, aten.zeros.default, aten.new_zeros.default, aten.zeros_like.default):
        return True
    if node.op != "get_attr":
        return False
    tensor = graph.attribute(str(node.target))
    return not tensor.requires_grad and not bool(tensor.any())


@looks_at(*_CELLS)
def spell_cell(graph: Graph, node: fx.Node) -> bool:
    """lstm_cell, gru_cell, rnn_cell -> one step."""
    values = arguments(node)
    pairs = node.target is aten.lstm_cell.default
    states = values["hx"] if pairs else [values["hx"]]
    rewriter = Rewriter(graph, node)
    cell = _CELLS[node.target](rewriter)
    roles = ("w_ih", "w_hh", "b_ih", "b_hh")
    weights = _Weights(*(values[role] for role in roles), projection=None)
    bias = weights.input_bias
    products = rewriter.call(aten.linear.default, values["input"], weights.input, bias)
    if cell.merged and weights.hidden_bias is not None:
        products = rewriter.call(aten.add.Tensor, products, weights.hidden_bias)
    state: State = tuple(None if _is_zero(graph, s) else s for s in states)
    results = cell.step(products, state, weights)
    if not pairs:
        rewriter.become(results[0])
        return True
    if not is_unpacked(node):
        return False
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
        graph.fx.erase_node(user)
    graph.fx.erase_node(node)
    return True


RECURRENT_RULES = (unroll, spell_cell)
