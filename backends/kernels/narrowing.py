"""From float32 products to bytes, with the fewest instructions: whole vectors at once.

`vpackssdw` and `vpackuswb` narrow two vectors to one with saturation, inside each 128-bit part.
Four vectors of int32 become one of bytes, whose 128-bit parts hold four lanes of each in turn.
Vectors of four lanes are NEON's, which `sqxtn` and `sqxtun` narrow to the same.

Why it is exact: wanted is `clamp(rne(product) + zero_point, lo, hi)` with 0 <= lo <= hi <= 255.
`vcvtps2dq` rounds to nearest even, and gives the right number for products below 2**31 (beyond, the
most negative one: such products have to be bounded first). Saturation to 16 bits, a saturating
addition of 0..255 and saturation to 0..255 keep the order of values and change only those that end
outside 0..255, which is outside lo..hi or its edge: so the last clamp gives what was wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from . import arm
from .instructions import nearest_int
from .statements import T, let


def bounded(product: Any, lanes: int) -> Any:
    """Return a product that can't reach 2**31; everything above 2**30 ends in hi anyway."""
    return T.min(product, T.broadcast(T.float32(2**30), lanes))


def words(products: Sequence[Any], zero_point: Any | None, lanes: int) -> list[Any]:
    """Return int16 vectors, one of each two products: `rne(product) + zero_point`, saturated.

    Args:
        products: float32 vectors, an even number.
        zero_point: int16 scalar, 0..255; None is 0.
        lanes: Lanes of a product.
    """
    rounded = arm.nearest_int if lanes == arm.LANES else partial(nearest_int, lanes=lanes)
    whole = [let(rounded(product)) for product in products]
    kind = f"int16x{2 * lanes}"
    packed = [
        let(_narrowed_words(a, b, lanes)) for a, b in zip(whole[::2], whole[1::2], strict=True)
    ]
    if zero_point is None:
        return packed
    offset = T.broadcast(zero_point, 2 * lanes)
    return [let(T.call_llvm_pure_intrin(kind, "llvm.sadd.sat", p, offset)) for p in packed]


def four_to_bytes(
    products: Sequence[Any], zero_point: Any | None, bounds: Sequence[Any] | None, lanes: int
) -> Any:
    """Return four products as one uint8 vector: four lanes of each in turn, in each 128-bit part.

    Args:
        products: Four float32 vectors.
        zero_point: int16 scalar, 0..255; None is 0.
        bounds: uint8 scalars, lo and hi; None is 0 and 255.
        lanes: Lanes of a product.
    """
    both = words(products, zero_point, lanes)
    return let(clamped(_narrowed_bytes(both[0], both[1], lanes), bounds, 4 * lanes))


def _narrowed_words(low: Any, high: Any, lanes: int) -> Any:
    """Narrow two int32 vectors to int16 with saturation, inside each 128-bit part."""
    if lanes == arm.LANES:
        return arm.narrowed_words(low, high)
    name = {8: "avx2.packssdw", 16: "avx512.packssdw.512"}[lanes]
    return T.call_llvm_pure_intrin(f"int16x{2 * lanes}", f"llvm.x86.{name}", low, high)


def _narrowed_bytes(low: Any, high: Any, lanes: int) -> Any:
    """Narrow two int16 vectors to uint8 with saturation, inside each 128-bit part."""
    if lanes == arm.LANES:
        return arm.narrowed_bytes(low, high)
    name = {8: "avx2.packuswb", 16: "avx512.packuswb.512"}[lanes]
    return T.call_llvm_pure_intrin(f"uint8x{4 * lanes}", f"llvm.x86.{name}", low, high)


def clamped(narrow: Any, bounds: Sequence[Any] | None, lanes: int) -> Any:
    """Return bytes clamped to uint8 scalars, lo and hi; without them as they are."""
    if bounds is None:
        return narrow
    floor, ceiling = (T.broadcast(bound, lanes) for bound in bounds)
    return T.max(T.min(narrow, ceiling), floor)


def in_order(narrow: Any, lanes: int) -> Any:
    """Return what `four_to_bytes` gives with the lanes of each product side by side."""
    if lanes == arm.LANES:
        return narrow
    order = [
        part * 16 + number * 4 + i
        for number in range(4)
        for part in range(lanes // 4)
        for i in range(4)
    ]
    return let(T.Shuffle([narrow], order))
