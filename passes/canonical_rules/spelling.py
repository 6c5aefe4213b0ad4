"""One spelling an operator: synonyms, defaults, sizes as pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments, is_overload, pair, set_argument

from .rewriting import forward, replace_with

aten = torch.ops.aten

_IDENTITIES = (
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.lift_fresh_copy.default,
    aten.positive.default,
)


def drop_identity(graph: Graph, node: fx.Node) -> bool:
    """contiguous, clone, detach, alias, a cast to the same dtype, a pool of one window: nothing."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return False
    same_cast = node.target in (aten.to.dtype, aten._to_copy.default) and graph.dtype(
        node
    ) == graph.dtype(source)
    if node.target not in _IDENTITIES and not same_cast:
        return False
    forward(graph, node, source)
    return True


def drop_assertion(graph: Graph, node: fx.Node) -> bool:
    """Run-time checks that torch.export leaves: shapes are verified by planish itself."""
    name = str(node.target)
    if node.users or not name.startswith(("aten._assert", "aten.sym_constrain")):
        return False
    graph.fx.erase_node(node)
    return True


def spell_clamp(graph: Graph, node: fx.Node) -> bool:
    """relu6, hardtanh, clamp_min, clamp_max -> clamp; clamp(x, 0) -> relu."""
    values = arguments(node) if is_overload(node.target) else {}
    if node.target is aten.hardtanh.default:
        bounds = (float(values["min_val"]), float(values["max_val"]))
    elif node.target is aten.relu6.default:
        bounds = (0.0, 6.0)
    elif node.target is aten.clamp_min.default:
        bounds = (values["min"], None)
    elif node.target is aten.clamp_max.default:
        bounds = (None, values["max"])
    elif node.target is aten.clamp.default and values["min"] == 0 and values["max"] is None:
        replace_with(graph, node, aten.relu.default, (node.args[0],))
        return True
    else:
        return False
    replace_with(graph, node, aten.clamp.default, (node.args[0], *bounds))
    return True


def spell_convolution(graph: Graph, node: fx.Node) -> bool:
    """convolution and conv2d with a padding word -> conv2d with numbers."""
    if not is_overload(node.target):
        return False
    values = arguments(node)
    if node.target is aten.convolution.default:
        planar = len(graph.shape(node)) == 4 and not values["transposed"]
        padding = list(values["padding"])
    elif node.target is aten.conv2d.padding:
        numbers = _same_padding(values)
        planar, padding = numbers is not None, numbers or [0, 0]
    else:
        return False
    if not planar:
        return False
    operands = (values["input"], values["weight"], values["bias"])
    sizes = (list(values["stride"]), padding, list(values["dilation"]), values["groups"])
    replace_with(graph, node, aten.conv2d.default, (*operands, *sizes))
    return True


def _same_padding(values: dict[str, Any]) -> list[int] | None:
    """Return the numbers behind "valid" or "same", or None where "same" is lopsided."""
    if values["padding"] == "valid":
        return [0, 0]
    kernel = values["weight"].meta["val"].shape[2:]
    dilation = pair(values["dilation"])
    totals = [dilation[axis] * (int(kernel[axis]) - 1) for axis in range(2)]
    return None if any(total % 2 for total in totals) else [total // 2 for total in totals]


# Arguments that are written out in full, and those among them that are pairs.
_WRITTEN: dict[Any, tuple[str, ...]] = {
    aten.conv2d.default: ("stride", "padding", "dilation"),
    aten.max_pool2d.default: ("kernel_size", "stride", "padding", "dilation"),
    aten.avg_pool2d.default: ("kernel_size", "stride", "padding"),
    aten.adaptive_avg_pool2d.default: ("output_size",),
    aten.batch_norm.default: (),
    aten.linear.default: (),
    aten.flatten.using_ints: (),
    aten.clamp.default: (),
}


def write_defaults(graph: Graph, node: fx.Node) -> bool:
    """Write every argument out, positionally, sizes as pairs."""
    del graph
    pairs = _WRITTEN.get(node.target)
    if pairs is None:
        return False
    values = arguments(node)
    if "stride" in pairs and not values["stride"]:
        values["stride"] = values["kernel_size"]  # torch's default for pools
    for name in pairs:
        values[name] = list(pair(values[name]))
    full = tuple(list(v) if isinstance(v, tuple | list) else v for v in values.values())
    written = tuple(list(a) if isinstance(a, tuple | list) else a for a in node.args)
    if written == full and not node.kwargs:
        return False
    node.args, node.kwargs = full, {}
    return True


def spell_linear(graph: Graph, node: fx.Node) -> bool:
    """addmm(b, x, t(w)), mm(x, t(w)) and matmul(x, t(w)), w stored -> linear(x, w, b)."""
    if node.target is aten.addmm.default:
        bias, x, transposed = node.args[:3]
        if node.kwargs or not isinstance(bias, fx.Node) or bias.op != "get_attr":
            return False
    elif node.target in (aten.mm.default, aten.matmul.default):
        (x, transposed), bias = node.args, None
    else:
        return False
    weight = _transposed_weight(transposed)
    if weight is None:
        return False
    replace_with(graph, node, aten.linear.default, (x, weight, bias))
    return True


def _transposed_weight(node: Any) -> fx.Node | None:
    """Return w if `node` is the transpose of a stored matrix w."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return None
    is_transpose = node.target is aten.t.default or (
        node.target is aten.permute.default and list(node.args[1]) == [1, 0]  # type: ignore[arg-type]
    )
    source = node.args[0]
    stored = isinstance(source, fx.Node) and source.op == "get_attr"
    return source if is_transpose and stored else None  # type: ignore[return-value]


def spell_pad(graph: Graph, node: fx.Node) -> bool:
    """pad in constant mode -> constant_pad_nd."""
    if node.target is not aten.pad.default:
        return False
    values = arguments(node)
    if values["mode"] != "constant":
        return False
    fill = 0.0 if values["value"] is None else values["value"]
    replace_with(graph, node, aten.constant_pad_nd.default, (node.args[0], values["pad"], fill))
    return True


def merge_pad(graph: Graph, node: fx.Node) -> bool:
    """conv2d(constant_pad_nd(x, zeros, the same on both sides)) -> conv2d(x), padded by itself."""
    source = node.args[0] if node.args else None
    if node.target is not aten.conv2d.default or not isinstance(source, fx.Node):
        return False
    if source.target is not aten.constant_pad_nd.default:
        return False
    amounts = arguments(source)
    left, right, top, bottom = (*amounts["pad"], 0, 0, 0, 0)[:4]
    even = left == right >= 0 and top == bottom >= 0 and not any(amounts["pad"][4:])
    if not even or amounts["value"] != 0 or len(graph.shape(source)) != 4:
        return False
    vertical, horizontal = pair(arguments(node)["padding"])
    set_argument(node, "padding", [vertical + top, horizontal + left])
    node.update_arg(0, source.args[0])
    return True


SPELLING_RULES = (
    drop_identity,
    drop_assertion,
    spell_clamp,
    spell_convolution,
    spell_linear,
    spell_pad,
    merge_pad,
    write_defaults,
)
