"""ARM's NEON instructions as expressions, on vectors of four int32 lanes (128 bits).

Names and meaning are those of the Arm Architecture Reference Manual (A64 SIMD). Where `smlal`,
`sdot` and the like take one lane of a register, LLVM finds it from a shuffle that repeats that
lane: a register of activations serves without being copied.
"""

from __future__ import annotations

from typing import Any

from tvm.tirx.script import builder

# As in `statements`, which builds upon `instructions` and so upon this.
T: Any = builder

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


def words(activations: Any) -> Any:
    """Return four bytes as four int16."""
    return T.Cast("int16x4", T.reinterpret("uint8x4", activations))


def groups_of_words(activations: Any) -> list[Any]:
    """Return eight bytes as groups of four int16."""
    wide = T.bind(T.Cast("int16x8", activations))
    return [T.Shuffle([wide], list(range(first, first + 4))) for first in (0, 4)]


def signed_bytes(activations: Any) -> Any:
    """Return four bytes, 128 taken from each, repeated in each lane."""
    return unsigned_bytes(T.bitwise_xor(activations, T.int32(_SIGN_BITS)), "int8")


def unsigned_bytes(activations: Any, dtype: str = "uint8") -> Any:
    """Return four bytes repeated in each lane."""
    return T.reinterpret(f"{dtype}x16", T.broadcast(activations, LANES))


def groups_of_signed_bytes(activations: Any) -> list[Any]:
    """Return sixteen bytes, 128 taken from each, as groups of four, repeated in each lane."""
    moved = T.bitwise_xor(activations, T.broadcast(T.uint8(128), 16))
    return groups_of_bytes(moved, "int8")


def groups_of_bytes(activations: Any, dtype: str = "uint8") -> list[Any]:
    """Return sixteen bytes as groups of four, each repeated in each lane."""
    groups = T.bind(T.reinterpret("int32x4", activations))
    repeated = [T.Shuffle([groups], [lane] * LANES) for lane in range(LANES)]
    return [T.reinterpret(f"{dtype}x16", group) for group in repeated]


def groups_of_pairs(first: Any, second: Any) -> list[Any]:
    """Return sixteen bytes of two pixels as groups of eight of both: operands of `usmmla`."""
    halves = [[*range(start, start + 8), *range(start + 16, start + 24)] for start in (8, 0)]
    # The second half first: then LLVM puts the other one into a register that is free by then.
    high, low = (T.bind(T.Shuffle([first, second], half)) for half in halves)
    return [low, high]


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
