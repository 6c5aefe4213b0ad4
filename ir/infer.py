"""Shape and dtype inference: runs the graph on tensors without data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)
from torch.fx.node import map_arg

from . import integer  # noqa: F401  (defines torch.ops.planish)
from .errors import ModelError, OperatorError
from .origin import get_origin

if TYPE_CHECKING:
    from .signature import InputSpec

# The size that stands for an open batch while shapes are inferred. Any value above 1 would do:
# torch.export specializes 0 and 1.
_BATCH_HINT = 7


class Inference:
    """Infers node after node, for code that builds a graph and asks for shapes on the way.

    Attributes:
        mode: The fake-tensor mode that all values live in.
        values: The inferred value (a FakeTensor, a SymInt, a tuple) of every node so far.
    """

    def __init__(self) -> None:
        self.mode = FakeTensorMode(shape_env=ShapeEnv(duck_shape=True))
        self.values: dict[fx.Node, Any] = {}

    def placeholder(self, node: fx.Node, spec: InputSpec) -> None:
        """Note an input."""
        self.values[node] = _fake_input(self.mode, spec)

    def stored(self, node: fx.Node, tensor: torch.Tensor) -> None:
        """Note a get_attr node and the tensor that it reads."""
        # Detached: fake copies of trainable leaves can't be mutated in place.
        self.values[node] = self.mode.from_tensor(tensor.detach(), static_shapes=True)

    def call(self, node: fx.Node) -> Any:
        """Infer an operator's value from those of its operands, and return it.

        Raises:
            ModelError: The operator rejects the shapes or dtypes it is given; names the node.
        """
        self.values[node] = _infer_call(self.mode, node, self.values)
        return self.values[node]


def infer_values(
    module: fx.GraphModule, inputs: list[InputSpec], *, keep_open: bool = False
) -> dict[fx.Node, Any]:
    """Return the inferred value (a FakeTensor, a SymInt, a tuple) of every node but the output.

    Args:
        module: Whose nodes.
        inputs: One specification a placeholder.
        keep_open: Whether an operator must leave the batch open. Some rules of torch don't.

    Raises:
        ModelError: An operator rejects the shapes or dtypes it is given; names the node.
        OperatorError: One doesn't leave the batch open; names the node.
    """
    inference = Inference()
    remaining = iter(inputs)
    opened: Any = None
    for node in module.graph.nodes:
        if node.op == "placeholder":
            spec = next(remaining)
            inference.placeholder(node, spec)
            if spec.shape[:1] == (None,):
                opened = inference.values[node].shape[0]
        elif node.op == "get_attr":
            inference.stored(node, get_tensor(module, str(node.target)))
        elif node.op == "call_function":
            inference.call(node)
            if keep_open and is_fixed(opened):
                raise OperatorError(
                    f"{node.name} = {node.target} doesn't leave the batch size open",
                    where=str(get_origin(node)),
                    cure="export the model with a fixed batch size",
                )
    return inference.values


def is_fixed(size: Any) -> bool:
    """Whether an open size has been given the number that stands for it, as some rules do."""
    return isinstance(size, torch.SymInt) and size.node.maybe_as_int() is not None


def infer_node(node: fx.Node, module: torch.nn.Module | None = None) -> None:
    """Write one node's value to `meta["val"]`, from those of the nodes that it reads.

    For rewrites that make a node and read its shape at once. The values live in the graph's last
    inference, whose symbols the new ones share; `module` holds the tensor of a get_attr node.

    Raises:
        ModelError: The operator rejects the shapes or dtypes it is given; names the node.
    """
    mode = _recorded_mode(node.graph)
    if node.op == "get_attr":
        assert module is not None, node
        tensor = get_tensor(module, str(node.target)).detach()
        node.meta["val"] = mode.from_tensor(tensor, static_shapes=True)
        return
    known = {operand: operand.meta["val"] for operand in node.all_input_nodes}
    node.meta["val"] = _infer_call(mode, node, known)


def _recorded_mode(graph: fx.Graph) -> FakeTensorMode:
    for node in graph.nodes:
        if isinstance(value := node.meta.get("val"), FakeTensor):
            return value.fake_mode
    return FakeTensorMode(shape_env=ShapeEnv(duck_shape=True))


def get_tensor(module: torch.nn.Module, name: str) -> torch.Tensor:
    """Return the parameter or buffer with this dotted name.

    Raises:
        ModelError: There is none.
    """
    owner: Any = module
    for part in name.split("."):
        owner = getattr(owner, part, None)
    if not isinstance(owner, torch.Tensor):
        raise ModelError(f"the graph refers to a tensor that it doesn't hold: {name!r}")
    return owner


def _fake_input(mode: FakeTensorMode, spec: InputSpec) -> torch.Tensor:
    sizes = [_BATCH_HINT if size is None else size for size in spec.shape]
    # DUCK: equal sizes are one symbol, so that every input has the same batch.
    dynamic = [DimDynamic.STATIC if size is not None else DimDynamic.DUCK for size in spec.shape]
    context = StatelessSymbolicContext(dynamic_sizes=dynamic)
    if None not in spec.shape:
        with mode:
            return torch.empty(sizes, dtype=spec.dtype)
    example = torch.empty(sizes, dtype=spec.dtype, device="cpu")
    return mode.from_tensor(example, symbolic_context=context)


def _padded(x: torch.Tensor, pad: list[int], *rest: Any, **options: Any) -> torch.Tensor:
    """The shape of a padded tensor; torch's own rule would fix the open batch size."""
    del rest, options
    sizes = list(x.shape)
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), 1):
        sizes[-axis] = sizes[-axis] + before + after
    return x.new_empty(sizes)


def _lstm(
    x: torch.Tensor,
    hx: list[torch.Tensor],
    params: list[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, ...]:
    """The shapes of an LSTM's results; torch's own rule wants no open sizes."""
    del params, has_biases, num_layers, dropout, train, batch_first
    hidden, cell = hx
    width = hidden.shape[-1] * (2 if bidirectional else 1)
    return x.new_empty((*x.shape[:-1], width)), torch.empty_like(hidden), torch.empty_like(cell)


def _entrywise(target: Any) -> Any:
    """Return the rule of a function of each entry, fifty times as fast as torch's own.

    Torch derives strides at length, which no part of planish reads. It is still asked about
    integers, whose type may change, and about tensor operands.
    """

    def rule(x: torch.Tensor, *rest: Any, **options: Any) -> Any:
        plain = not options and not any(isinstance(r, torch.Tensor) for r in rest)
        if plain and x.is_floating_point() and (target is not _aten.clamp.default or any_of(rest)):
            return torch.empty_like(x)
        return target(x, *rest, **options)

    def any_of(bounds: tuple[Any, ...]) -> bool:
        return any(bound is not None for bound in bounds)

    return rule


def _batch_norm(x: torch.Tensor, *rest: Any) -> torch.Tensor:
    """The shape of batch norm's result, with the check of its parameters."""
    for value in rest[:4]:
        if value is not None and tuple(value.shape) != (x.shape[1],):
            raise ValueError(f"{tuple(value.shape)} parameters for {x.shape[1]} channels")
    if not x.is_floating_point():
        return _aten.batch_norm.default(x, *rest)
    return torch.empty_like(x)


_aten = torch.ops.aten


def _baddbmm(
    added: torch.Tensor, first: torch.Tensor, second: torch.Tensor, **options: Any
) -> torch.Tensor:
    """The shape of a sum with a batched product; torch's own rule wants no open sizes."""
    del options
    return added + torch.bmm(first, second)


def _per_sample(target: Any) -> Any:
    """Return the rule of an operator on images: torch's own would fix the open batch size."""

    def rule(x: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        one = target(x.new_empty((1, *x.shape[1:])), *rest, **options)
        return one.new_empty((x.shape[0], *one.shape[1:]))

    return rule


def _taken(x: torch.Tensor, indices: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """The shape of entries taken along an axis; torch's own rule would fix the open batch size."""
    if dim is None or x.dim() != indices.dim():
        return _aten.take_along_dim.default(x, indices, dim)
    return x.new_empty(indices.shape)


_RULES: dict[Any, Any] = {
    torch.ops.aten.baddbmm.default: _baddbmm,
    **{
        target: _entrywise(target)
        for target in (
            _aten.clamp.default,
            _aten.gelu.default,
            _aten.hardsigmoid.default,
            _aten.hardswish.default,
            _aten.relu.default,
            _aten.sigmoid.default,
            _aten.silu.default,
            _aten.tanh.default,
        )
    },
    **{
        target: _per_sample(target)
        for packet in (
            *(_aten.upsample_nearest1d, _aten.upsample_nearest2d, _aten.upsample_linear1d),
            *(_aten.upsample_bilinear2d, _aten.upsample_bicubic2d),
            *(_aten._upsample_nearest_exact2d, _aten._upsample_bilinear2d_aa),
        )
        for target in (packet.default, packet.vec)
    },
    _aten.im2col.default: _per_sample(_aten.im2col.default),
    _aten.col2im.default: _per_sample(_aten.col2im.default),
    _aten.take_along_dim.default: _taken,
    _aten.batch_norm.default: _batch_norm,
    torch.ops.planish.fake_quantize.default: lambda x, *_: x.new_empty(x.shape),
    torch.ops.aten.lstm.input: _lstm,
    torch.ops.aten.constant_pad_nd.default: _padded,
    torch.ops.aten.pad.default: _padded,
}


def _infer_call(mode: FakeTensorMode, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
    assert callable(node.target)
    rule = _RULES.get(node.target, node.target)
    try:
        with mode, torch.no_grad():
            return rule(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"{node.name} = {node.target} can't take its operands: {reason}",
            where=str(get_origin(node)),
        ) from error
