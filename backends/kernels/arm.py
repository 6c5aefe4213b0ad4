"""ARM's NEON instructions as expressions, on vectors of four int32 lanes (128 bits).

Names and meaning are those of the Arm Architecture Reference Manual (A64 SIMD). Where `smlal`,
`sdot` and the like take one lane of a register, LLVM finds it from a shuffle that repeats that
lane: a register of activations serves without being copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm.tirx.script import builder

# As in `statements`, which builds upon `instructions` and so upon this.
T: Any = builder

# read(pixel, first, count): `count` activations of one of an operand's pixels, from its first-th.
Read = Callable[[int, int, int], Any]

LANES = 4
# Bytes that are 1 once 128 is taken from them.
SIGNED_ONES = 0x81818181 - (1 << 32)
_SIGN_BITS = 0x80808080 - (1 << 32)


def _neon(dtype: str, name: str, *operands: Any) -> Any:
    return T.call_llvm_pure_intrin(dtype, f"llvm.aarch64.neon.{name}", *operands)


def smlal(lanes: int, accumulator: Any, operand: Any, weights: Any) -> Any:
    """Four products of 16 bits a lane, `smlal` each; weights lie neighbour by neighbour."""
    for neighbour in range(4):
        first = neighbour * lanes
        weight = T.Shuffle([weights], list(range(first, first + lanes)))
        shared = T.Shuffle([operand], [neighbour] * lanes)
        wide = [T.Cast(f"int32x{lanes}", each) for each in (weight, shared)]
        accumulator = accumulator + wide[0] * wide[1]
    return accumulator


def long_product(left: Any, right: Any) -> Any:
    """Four products of 16 bits (`smull`), with a sum that they are added to one `smlal`.

    Of casts and a product LLVM makes one of 32 bits where it knows that no number is negative, as
    of widened bytes; of products by a lane (`smlal` here) it makes the better loop.
    """
    return _neon("int32x4", "smull", left, right)


def sdot(lanes: int, accumulator: Any, operand: Any, weights: Any) -> Any:
    """Four products of s8 x s8 a lane, summed in 32 bits."""
    return _neon(f"int32x{lanes}", "sdot", accumulator, weights, operand)


def usdot(lanes: int, accumulator: Any, operand: Any, weights: Any) -> Any:
    """Four products of u8 x s8 a lane, summed in 32 bits (`sudot` where one lane serves all)."""
    return _neon(f"int32x{lanes}", "usdot", accumulator, operand, weights)


def usmmla(lanes: int, accumulator: Any, operand: Any, weights: Any) -> Any:
    """2 pixels x 8 activations by 2 channels x 8 weights: [p0 c0, p0 c1, p1 c0, p1 c1]."""
    return _neon(f"int32x{lanes}", "usmmla", accumulator, operand, weights)


def byte_products(lanes: int, accumulator: Any, operand: Any, weights: Any) -> Any:
    """Sixteen products of s8 x s8 of one channel, four sums of them added to as many.

    Eight products (`smull`) and eight more (`smlal2`) are summed in 16 bits, neighbours of these in
    32 (`sadalp`). Exact unless two products in one place are both -128 * -128.
    """
    low, high = (
        [T.Shuffle([v], list(range(i, i + 8))) for v in (operand, weights)] for i in (0, 8)
    )
    both = T.bind(_neon("int16x8", "smull", *low) + _neon("int16x8", "smull", *high))
    return accumulator + _neon(f"int32x{lanes}", "saddlp", both)


def sums_of_each(vectors: Sequence[Any]) -> Any:
    """Return the sum of each of four vectors' four lanes, by neighbours (`addp`, three times)."""
    low, high = (T.bind(_neon("int32x4", "addp", *vectors[i : i + 2])) for i in (0, 2))
    return _neon("int32x4", "addp", low, high)


def words(activations: Any) -> Any:
    """Return four bytes as four int16."""
    return T.Cast("int16x4", T.reinterpret("uint8x4", activations))


def groups_of_words(read: Read) -> list[Any]:
    """Return eight bytes as groups of four int16."""
    wide = T.bind(T.Cast("int16x8", read(0, 0, 8)))
    return [T.Shuffle([wide], list(range(first, first + 4))) for first in (0, 4)]


def signed_bytes(activations: Any) -> Any:
    """Return four bytes, 128 taken from each, repeated in each lane."""
    return unsigned_bytes(T.bitwise_xor(activations, T.int32(_SIGN_BITS)), "int8")


def unsigned_bytes(activations: Any, dtype: str = "uint8") -> Any:
    """Return four bytes repeated in each lane."""
    return T.reinterpret(f"{dtype}x16", T.broadcast(activations, LANES))


def sixteen_signed_bytes(read: Read) -> list[Any]:
    """Return sixteen bytes, 128 taken from each, as one group."""
    return [T.bind(T.reinterpret("int8x16", _moved(read)))]


def groups_of_signed_bytes(read: Read) -> list[Any]:
    """Return sixteen bytes, 128 taken from each, as groups of four, repeated in each lane."""
    return _repeated(_moved(read), "int8x16")


def groups_of_bytes(read: Read) -> list[Any]:
    """Return sixteen bytes as groups of four, each repeated in each lane."""
    return _repeated(read(0, 0, 16), "uint8x16")


def _moved(read: Read) -> Any:
    return T.bitwise_xor(read(0, 0, 16), T.broadcast(T.uint8(128), 16))


def _repeated(activations: Any, dtype: str) -> list[Any]:
    groups = T.bind(T.reinterpret("int32x4", activations))
    repeated = [T.Shuffle([groups], [lane] * LANES) for lane in range(LANES)]
    return [T.reinterpret(dtype, group) for group in repeated]


def pairs_of_bytes(read: Read) -> list[Any]:
    """Return sixteen bytes of two pixels, eight of each side by side: operands of `usmmla`.

    As two numbers of 64 bits, so that LLVM loads each into its half of a register (`ldr d`, `ld1`).
    """
    found: list[Any] = []
    for first in (0, 8):
        halves = [T.reinterpret("int64", read(pixel, first, 8)) for pixel in (0, 1)]
        found.append(T.reinterpret("uint8x16", T.bind(T.Shuffle(halves, [0, 1]))))
    return found


def nearest_int(value: Any) -> Any:
    """Round float32 to int32, to nearest, ties to even; beyond int32 to its bounds (`fcvtns`)."""
    return _neon("int32x4", "fcvtns", value)


def narrowed_words(low: Any, high: Any) -> Any:
    """Return two int32 vectors as int16, saturated, in their order (`sqxtn`, `sqxtn2`)."""
    halves = [T.bind(_neon("int16x4", "sqxtn", part)) for part in (low, high)]
    return T.Shuffle(halves, list(range(8)))


def narrowed_bytes(low: Any, high: Any) -> Any:
    """Return two int16 vectors as uint8, saturated, in their order (`sqxtun`, `sqxtun2`)."""
    halves = [T.bind(_neon("uint8x8", "sqxtun", part)) for part in (low, high)]
    return T.Shuffle(halves, list(range(16)))
