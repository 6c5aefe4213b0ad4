"""Operators that torch itself makes of others: traced, and put in their place.

Torch says of many what they are made of, of some in Python (`torch._decomp`), of composite ones in
C++. Those listed here are known to come down to operators of the table, at an open batch where
torch's own rule allows it. (Just any operator must not be traced: some, such as `quantile`, end the
process.) The rules look at the parts as at all other nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch._decomp import decomposition_table
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from planish.ir.errors import ModelError
from planish.ir.graph import Graph
from planish.ir.infer import is_fixed

from .rewriting import Rewriter, forward, is_unpacked, looks_at, tensor_name

aten = torch.ops.aten

# What torch raises where its own rule can't do with the operands: open sizes, as a rule.
_FAILURES = (AssertionError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
_LISTED = (
    # Reductions.
    aten.any.dim,
    aten.any.dims,
    aten.any.default,
    aten.all.dim,
    aten.all.dims,
    aten.all.default,
    aten.count_nonzero.default,
    aten.count_nonzero.dim_IntList,
    aten.nansum.default,
    aten.pairwise_distance.default,
    aten.renorm.default,
    # Functions of each entry.
    aten.clamp.Tensor,
    aten.frac.default,
    aten.floor_divide.default,
    aten.nan_to_num.default,
    aten.hardshrink.default,
    aten.softshrink.default,
    aten.logit.default,
    aten.sinc.default,
    aten.heaviside.default,
    aten.ldexp.Tensor,
    aten.isneginf.default,
    aten.isposinf.default,
    aten.fill.Tensor,
    # Images.
    aten.grid_sampler.default,
    aten.affine_grid_generator.default,
    aten.adaptive_avg_pool3d.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest3d.vec,
    aten.upsample_bicubic2d.vec,
    aten.upsample_trilinear3d.vec,
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact3d.vec,
    # Movement and creation.
    aten.take.default,
    aten.one_hot.default,
    aten.rot90.default,
    aten.outer.default,
    aten.kron.default,
    aten.diag.default,
    aten.diag_embed.default,
)


@looks_at(*_LISTED)
def take_apart(graph: Graph, node: fx.Node) -> bool:
    """hardshrink(x, 0.5) -> where(abs(x) <= 0.5, 0, x), and so on."""
    leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
    operands = [leaf for leaf in leaves if isinstance(leaf, fx.Node)]
    made = _trace(node, leaves, spec)
    if made is None or not _readable(node, made):
        return False
    try:
        results = _insert(graph, node, made, operands)
    except ModelError:  # what was inserted so far is read by nobody
        return False
    if isinstance(results, fx.Node):
        forward(graph, node, results)
        return True
    for user in list(node.users):
        forward(graph, user, results[int(user.args[1])])  # type: ignore[arg-type]
    graph.fx.erase_node(node)
    return True


def _trace(node: fx.Node, leaves: Sequence[Any], spec: Any) -> fx.GraphModule | None:
    """Return what torch makes of an operator, or None where it has nothing to say."""
    target: Any = node.target
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, fx.Node)]
    values = [leaves[i].meta["val"] for i in places]
    in_python = decomposition_table.get(target)
    if in_python is None and not target._can_decompose():
        return None

    def compute(*given: Any) -> Any:
        full = list(leaves)
        for i, value in zip(places, given, strict=True):
            full[i] = value
        args, kwargs = pytree.tree_unflatten(full, spec)
        return (in_python or target)(*args, **kwargs)

    try:
        with torch.no_grad():
            # In Python operators are seen as they are called; of C++ only what is left of it.
            made = make_fx(compute, tracing_mode="symbolic", pre_dispatch=in_python is not None)(
                *values
            )
    except _FAILURES:
        return None
    parts = {part.target for part in made.graph.nodes}
    return None if target in parts or any(map(_is_fixed, values)) else made


def _is_fixed(value: Any) -> bool:
    sizes = value.shape if isinstance(value, torch.Tensor) else [value]
    return any(map(is_fixed, sizes))


def _readable(node: fx.Node, made: fx.GraphModule) -> bool:
    """Whether all is there: stored tensors have data, and who reads a tuple takes one of it."""
    stored = [getattr(made, str(n.target)) for n in made.graph.nodes if n.op == "get_attr"]
    if not all(isinstance(t, torch.Tensor) and not isinstance(t, FakeTensor) for t in stored):
        return False
    (results,) = made.graph.output_node().args
    if isinstance(results, fx.Node):
        return True
    return is_unpacked(node)


def _insert(
    graph: Graph, node: fx.Node, made: fx.GraphModule, operands: Sequence[fx.Node]
) -> fx.Node | Sequence[fx.Node]:
    """Put a traced graph before a node; return its results."""
    rewriter, remaining = Rewriter(graph, node), iter(operands)
    known: dict[fx.Node, Any] = {}
    for part in made.graph.nodes:
        if part.op == "placeholder":
            known[part] = next(remaining)
        elif part.op == "get_attr":
            tensor = getattr(made, part.target).detach()
            known[part] = rewriter.store(tensor_name(node, "constant"), tensor)
        elif part.op == "call_function":
            args, kwargs = map_arg((part.args, part.kwargs), known.__getitem__)
            known[part] = rewriter.call(part.target, *args, options=kwargs)
    results: Any = map_arg(made.graph.output_node().args[0], known.__getitem__)
    return results


DECOMPOSE_RULES = (take_apart,)
