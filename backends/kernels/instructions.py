"""Dot-product instructions, and expressions that every kernel's epilogue shares."""

# pyright: reportMissingModuleSource=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from . import arm

# LLVM writes loops of at most so many long turns one after the other.
UNROLLED = 3
# Buffers are views of raw pointers; the extent only has to be larger than any index.
ANY = 1 << 30


def _as_it_is(activations: Any) -> Any:
    return activations


@dataclass(frozen=True)
class Instruction:
    """A multiply-accumulate of short dot products.

    Attributes:
        group: Neighbouring input channels that one 32-bit lane multiplies.
        storage: Dtype of activations in memory.
        weight: Dtype of packed weights.
        order: How the weights of a vector of lanes lie: "lanes" (all neighbours lane by lane),
            "halves" (those of each lane's even neighbours, then those of its odd ones) or
            "neighbours" (all lanes neighbour by neighbour).
        multiply: `multiply(lanes, accumulator, operand, weights)`: the new accumulator.
        operand: From an int32 that holds `group` activations, what `multiply` takes.
        ones: The int32 of which `operand` makes `group` activations of one.
        reads: Activations of a pixel that one step of `kernels.direct` reads, a multiple of group.
        operands: From what reads activations of the pixels (see `arm.Read`), what `multiply` takes
            for each group.
        shift: What is taken from each activation, for instructions that take signed ones.
        pixels: Of which an operand holds activations, and a register sums.
        parts: Lanes that are one channel's sum together (see `sums`).
        issued: Instructions that one multiplication becomes.
        alone: Those of them that a processor starts one of in a cycle, not two.
        temporaries: Registers that it needs beside sums, weights and activations: a tile that
            leaves none spills in its inner loop.
    """

    group: int
    storage: str
    weight: str
    multiply: Callable[[int, Any, Any, Any], Any]
    order: str = "lanes"
    operand: Callable[[Any], Any] = _as_it_is
    ones: int = 0x01010101
    reads: int = 4
    operands: Callable[..., list[Any]] | None = None
    shift: int = 0
    pixels: int = 1
    parts: int = 1
    issued: int = 1
    alone: int = 0
    temporaries: int = 0

    @property
    def weights_at_once(self) -> int:
        """Vectors of weights that one multiplication of a vector of lanes reads."""
        return 2 if self.order == "halves" else 1

    def fits(self, pixels: int, vectors: int, registers: int, steps: int = 1) -> bool:
        """Whether a tile leaves room for its weights, its activations and the temporaries.

        Args:
            pixels: Of the tile.
            vectors: Of output channels.
            registers: That the tile may fill.
            steps: Of a run: LLVM unrolls a few, and reads the next one's activations meanwhile.
        """
        if self.operands is None:  # one activation at a time, all weights of a step
            live = pixels * vectors + vectors * self.weights_at_once + 1
        else:  # all pixels' activations, two vectors of weights
            pixels += -pixels % self.pixels
            live = pixels * vectors * self.parts + pixels * (2 if 1 < steps <= UNROLLED else 1)
            # With a register a channel LLVM loads all weights first, and as many products wait.
            live += 2 if self.parts == 1 else 2 * self.parts * vectors
        return live + self.temporaries <= registers

    def position(self, lane: Any, neighbour: Any, lanes: int) -> Any:
        """Return where in a vector of packed weights a lane's neighbour stands."""
        if self.order == "halves":
            return neighbour % 2 * (2 * lanes) + lane * 2 + neighbour // 2
        if self.order == "neighbours":
            return neighbour * lanes + lane
        return lane * self.group + neighbour

    def packing(self, lanes: int) -> dict[str, Any]:
        """What the recipe "dot-weights" has to know, for vectors of this many lanes."""
        known: dict[str, Any] = {"neighbours": self.group, "dtype": self.weight}
        if self.order != "lanes":
            known |= {"order": self.order, "vector": lanes}
        return known


def pair_dot(lanes: int, left: Any, right: Any) -> Any:
    """`vpmaddwd`: int32 lane i = left[2i] * right[2i] + left[2i+1] * right[2i+1], exact.

    With |left| <= 255 and |right| <= 128 a pair sum is at most 65280: no overflow.
    """
    name = {
        4: "llvm.x86.sse2.pmadd.wd",
        8: "llvm.x86.avx2.pmadd.wd",
        16: "llvm.x86.avx512.pmaddw.d.512",
    }[lanes]
    return T.call_llvm_pure_intrin(f"int32x{lanes}", name, left, right)


def _vpmaddwd(lanes: int, accumulator: Any, activations: Any, weights: Any) -> Any:
    """Four bytes by `vpmaddwd`: the even ones as words, then the odd ones; exact.

    A word's low byte is what a mask leaves, its high byte what a shift leaves, so bytes in memory
    become the instruction's 16-bit operands without a shuffle.
    """
    words = T.reinterpret(f"uint16x{2 * lanes}", T.broadcast(activations, lanes))
    even = T.bitwise_and(words, T.broadcast(T.uint16(255), 2 * lanes))
    odd = T.shift_right(words, T.broadcast(T.uint16(8), 2 * lanes))
    for number, half in enumerate((even, odd)):
        first = number * 2 * lanes
        chosen = T.Shuffle([weights], list(range(first, first + 2 * lanes)))
        signed = T.reinterpret(f"int16x{2 * lanes}", half)
        accumulator = accumulator + pair_dot(lanes, signed, chosen)
    return accumulator


def _vpdpbusd(lanes: int, accumulator: Any, activations: Any, weights: Any) -> Any:
    # Four products of u8 x s8 are summed in 32 bits (vpdpbusds would saturate, this one wraps).
    bytes_ = T.reinterpret(f"uint8x{4 * lanes}", T.broadcast(activations, lanes))
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    return T.call_llvm_pure_intrin(f"int32x{lanes}", name, accumulator, bytes_, weights)


INSTRUCTIONS: dict[str, Instruction] = {
    "vpmaddwd": Instruction(
        group=4, storage="uint8", weight="int16", multiply=_vpmaddwd, order="halves", temporaries=3
    ),
    "vpdpbusd": Instruction(group=4, storage="uint8", weight="int8", multiply=_vpdpbusd),
    "smlal": Instruction(
        group=4,
        storage="uint8",
        weight="int16",
        multiply=arm.smlal,
        order="neighbours",
        operand=arm.words,
        reads=8,
        operands=arm.groups_of_words,
        issued=4,
        alone=4,
        # LLVM sums some products before it adds them to a sum.
        temporaries=8,
    ),
    "sdot": Instruction(
        group=4,
        storage="uint8",
        weight="int8",
        multiply=arm.sdot,
        operand=arm.signed_bytes,
        ones=arm.SIGNED_ONES,
        reads=16,
        operands=arm.groups_of_signed_bytes,
        shift=128,
    ),
    "usdot": Instruction(
        group=4,
        storage="uint8",
        weight="int8",
        multiply=arm.usdot,
        operand=arm.unsigned_bytes,
        reads=16,
        operands=arm.groups_of_bytes,
    ),
    "usmmla": Instruction(
        group=8,
        storage="uint8",
        weight="int8",
        multiply=arm.usmmla,
        reads=16,
        operands=arm.pairs_of_bytes,
        pixels=2,
    ),
    "smull": Instruction(
        group=16,
        storage="uint8",
        weight="int8",
        multiply=arm.byte_products,
        reads=16,
        operands=arm.sixteen_signed_bytes,
        shift=128,
        parts=4,
        issued=3,
        alone=2,
        temporaries=3,
    ),
}


def vector(dtype: str, lanes: int) -> str:
    """Return TVM's name of a vector dtype; one lane is the scalar."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def spread(value: Any, lanes: int) -> Any:
    """Broadcast a scalar to a vector; one lane stays a scalar."""
    return value if lanes == 1 else T.broadcast(value, lanes)


def nearest_int(value: Any, lanes: int) -> Any:
    """Round float32 to int32, to nearest, ties to even (one `vcvtps2dq`)."""
    return T.call_llvm_pure_intrin(vector("int32", lanes), "llvm.lrint", value)


def requantize(
    accumulator: Any, multiplier: Any, lo: Any, hi: Any, zero_point: Any, lanes: int
) -> Any:
    """Return `clamp(rne(float32(accumulator) * multiplier), lo, hi) + zero_point` as int32.

    `lo` and `hi` are int32 scalars that the zero point is already taken from. They are integers, so
    clamping before rounding gives the same value, and the product is never followed by a float
    addition that LLVM could contract.
    """
    product = T.Cast(vector("float32", lanes), accumulator) * multiplier
    lowest = spread(T.Cast("float32", lo), lanes)
    highest = spread(T.Cast("float32", hi), lanes)
    clamped = T.max(T.min(product, highest), lowest)
    return nearest_int(clamped, lanes) + spread(zero_point, lanes)
