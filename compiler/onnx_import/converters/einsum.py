"""Einstein sums, spelled as permutations, products and one matrix product for each operand."""

from __future__ import annotations

import string
from math import prod

import torch

from ..call import Call
from ..values import Operand
from .shapes import permute, reshape

aten = torch.ops.aten


def einsum(call: Call, equation: str, operands: list[Operand]) -> Operand:
    """Return an Einstein sum of operands, such as "bij,bjk->bik"."""
    terms, output = _parse(call, equation, operands)
    sizes: dict[str, int | None] = {}
    for term, operand in zip(terms, operands, strict=True):
        for label, size in zip(term, call.shape(operand), strict=True):
            if sizes.setdefault(label, size) == 1:
                sizes[label] = size
            if size not in (1, sizes[label]):
                raise call.refuse(f"has sizes {size} and {sizes[label]} for {label!r}")
    total, labels = _diagonals(call, operands[0], terms[0])
    for index in range(1, len(operands)):
        later = set(output).union(*terms[index + 1 :])
        other, names = _diagonals(call, operands[index], terms[index])
        total, labels = _product(call, total, labels, other, names, later)
    total, labels = _summed(call, total, labels, set(output))
    return permute(call, total, [labels.index(label) for label in output])


def _parse(call: Call, equation: str, operands: list[Operand]) -> tuple[list[str], str]:
    """Return one letter an axis for each operand and the output; "..." takes unused letters."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise call.refuse(f"has {len(operands)} operands for {equation!r}")
    spare = [c for c in string.ascii_letters if c not in equation]
    most = max(
        (
            call.rank(x) - len(t.replace("...", ""))
            for t, x in zip(terms, operands, strict=True)
            if "..." in t
        ),
        default=0,
    )
    if not 0 <= most <= len(spare):
        raise call.refuse(f"has operands that don't fit {equation!r}")
    spread = "".join(spare[:most])
    filled: list[str] = []
    for term, operand in zip(terms, operands, strict=True):
        count = call.rank(operand) - len(term.replace("...", ""))
        filled.append(term.replace("...", spread[most - count :] if count > 0 else ""))
        if len(filled[-1]) != call.rank(operand) or (not filled[-1].isalpha() and filled[-1]):
            raise call.refuse(f"has an operand of {call.rank(operand)} axes for {term!r}")
    if not arrow:
        letters = "".join(filled)
        right = "..." + "".join(
            sorted(c for c in set(letters) if letters.count(c) == 1 and c not in spread)
        )
    output = right.replace("...", spread)
    if len(set(output)) != len(output) or not set(output) <= set("".join(filled)):
        raise call.refuse(f"has an impossible output in {equation!r}")
    return filled, output


def _diagonals(call: Call, x: Operand, term: str) -> tuple[Operand, list[str]]:
    """A letter that stands twice in one operand means its diagonal."""
    labels = list(term)
    for label in dict.fromkeys(term):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = call.emit(aten.diagonal.default, x, 0, first, second)
            labels = [c for i, c in enumerate(labels) if i not in (first, second)] + [label]
    return x, labels


def _summed(call: Call, x: Operand, labels: list[str], kept: set[str]) -> tuple[Operand, list[str]]:
    axes = [axis for axis, label in enumerate(labels) if label not in kept]
    if not axes:
        return x, labels
    return call.emit(aten.sum.dim_IntList, x, axes), [c for c in labels if c in kept]


def _product(
    call: Call, a: Operand, left: list[str], b: Operand, right: list[str], later: set[str]
) -> tuple[Operand, list[str]]:
    """Multiply two operands and sum over what they share and nothing later reads."""
    a, left = _summed(call, a, left, set(right) | later)
    b, right = _summed(call, b, right, set(left) | later)
    batch = [c for c in left if c in right and c in later]
    inner = [c for c in left if c in right and c not in later]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    if not inner:
        return _outer(call, a, left, b, right, [*batch, *rows, *columns])
    a = permute(call, a, [left.index(c) for c in [*batch, *rows, *inner]])
    b = permute(call, b, [right.index(c) for c in [*batch, *inner, *columns]])
    sizes = [call.emitter.size(a, axis) for axis in range(call.rank(a))]
    ends = [call.emitter.size(b, axis) for axis in range(call.rank(b))][len(batch) + len(inner) :]
    if len(rows) != 1 or len(inner) != 1 or len(columns) != 1:
        flat = prod(call.fixed(a, axis) for axis in range(len(batch) + len(rows), call.rank(a)))
        height = prod(call.fixed(a, len(batch) + i) for i in range(len(rows)))
        width = prod(call.fixed(b, len(batch) + len(inner) + i) for i in range(len(columns)))
        heads = sizes[: len(batch)]
        a = reshape(call, a, [*heads, height, flat])
        b = reshape(call, b, [*heads, flat, width])
    y = call.emit(aten.matmul.default, a, b)
    shape = [*sizes[: len(batch) + len(rows)], *ends]
    if len(rows) != 1 or len(columns) != 1:
        y = reshape(call, y, shape)
    return y, [*batch, *rows, *columns]


def _outer(
    call: Call, a: Operand, left: list[str], b: Operand, right: list[str], labels: list[str]
) -> tuple[Operand, list[str]]:
    """Multiply entry by entry, each operand with an axis of one for what it lacks."""
    spread: list[Operand] = []
    for operand, own in ((a, left), (b, right)):
        x = permute(call, operand, [own.index(c) for c in labels if c in own])
        for axis, label in enumerate(labels):
            if label not in own:
                x = call.emit(aten.unsqueeze.default, x, axis)
        spread.append(x)
    return call.emit(aten.mul.Tensor, *spread), labels
