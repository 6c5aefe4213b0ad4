"""Dense convolution and linear layers by `vpmaddubsw` where the weights prove that it is exact.

`vpmaddubsw` multiplies unsigned bytes with signed ones and adds neighbouring products in 16 bits,
where it saturates: twice the products of `vpmaddwd`, but only for weights that can't make it
saturate. A quad is four neighbouring input bytes for a block of output channels; as the weights are
known, each quad of each block is sorted into a class when the layer is compiled:

- pairs: two quads whose 16-bit sums are added in 16 bits before `vpmaddwd` widens them;
- single: one quad, its 16-bit sums widened at once;
- wide: four bytes expanded to words, by `vpmaddwd` (see `instructions`); any weights.

Quads of zeros are left out. Lists hold where each quad's bytes lie in a window, so their order is
free: pairs first, then single ones; wide ones have a list of their own.

Why it is exact: x is 0..255. If the positive weights that meet in one 16-bit lane sum up to P, the
negative ones to -N, then every sum of their products, in any order, lies in -255 N .. 255 P. Quads
are single where P and N are at most 128 for each output channel and each two neighbours, as
255 * 128 = 32640 < 32768; two are a pair where P and N of both together are. Sums of `vpmaddwd` by
ones, or of words up to 255 by weights, and all other sums are integers modulo 2**32. Padding holds
the zero point, and the packed bias holds `bias - zero_point * sum(weights)`.

For the loops over tiles see `tiles`.
"""

from __future__ import annotations

from typing import Any

from .epilogue import SCALARS
from .instructions import INSTRUCTIONS, pair_dot
from .statements import T, kernel, let, load, loop, store
from .tiles import Tiles

# Numbers a block in the table: quads of each class, then where the block's entries begin in the
# list of pairs and single quads and in that of wide ones.
TABLE_ROW = 5


def byte_products(lanes: int, values: Any, weights: Any) -> Any:
    """`vpmaddubsw`: int16 sums of two products, exact where the weights can't saturate it."""
    name = {8: "llvm.x86.avx2.pmadd.ub.sw", 16: "llvm.x86.avx512.pmaddubs.w.512"}[lanes]
    return T.call_llvm_pure_intrin(f"int16x{2 * lanes}", name, values, weights)


def build(**options: Any) -> Any:
    """Return the kernel; `options` are what `tiles.Tiles` takes."""
    layout = Tiles(**options)
    lanes, x_steps = layout.lanes, layout.x_steps
    vectors, distances, wide = layout.tile[2], layout.distances(x_steps), INSTRUCTIONS["vpmaddwd"]
    quad = 4 * lanes  # weights of one vector and quad

    def quad_bytes(x: Any, at: Any) -> Any:
        return T.reinterpret("int32", x.vload([at], "uint8x4"))

    def spread_bytes(x: Any, at: Any) -> Any:
        return let(T.reinterpret(f"uint8x{quad}", T.broadcast(quad_bytes(x, at), lanes)))

    def add(sums: Any, v: int, words: Any) -> None:
        ones = T.broadcast(T.int16(1), 2 * lanes)
        total = load(sums, v * lanes, lanes) + pair_dot(lanes, words, ones)
        store(sums, v * lanes, total, lanes)

    def add_narrow(tensors: Any, sums: Any, start: Any, entry: Any, together: int) -> None:
        """Add quads of the list from `entry` on, summed in 16 bits."""
        x, weights = tensors["x"], tensors["weights"]
        packed = [
            [let(load(weights, ((entry + k) * vectors + v) * quad, quad)) for v in range(vectors)]
            for k in range(together)
        ]
        places = [let(start + tensors["offsets"][entry + k]) for k in range(together)]
        for pixel, distance in enumerate(distances):
            bytes_ = [spread_bytes(x, place + distance) for place in places]
            for v in range(vectors):
                words = [byte_products(lanes, b, p[v]) for b, p in zip(bytes_, packed, strict=True)]
                add(sums[pixel], v, sum(words[1:], words[0]))

    def add_wide(tensors: Any, sums: Any, start: Any, entry: Any) -> None:
        """Add one quad of the list of wide ones."""
        packed = [
            let(load(tensors["wide_weights"], (entry * vectors + v) * quad, quad))
            for v in range(vectors)
        ]
        place = let(start + tensors["wide_offsets"][entry])
        for pixel, distance in enumerate(distances):
            shared = let(quad_bytes(tensors["x"], place + distance))
            for v, weight in enumerate(packed):
                total = wide.multiply(lanes, load(sums[pixel], v * lanes, lanes), shared, weight)
                store(sums[pixel], v * lanes, total, lanes)

    def multiply(tensors: dict[str, Any], sums: list[Any], start: Any, block: Any) -> None:
        table = tensors["table"]
        pairs, single, wide_quads, first, first_wide = (
            let(table[block * TABLE_ROW + i]) for i in range(TABLE_ROW)
        )
        first_single = let(first + pairs * 2)
        with loop(pairs) as i:
            add_narrow(tensors, sums, start, let(first + i * 2), 2)
        with loop(single) as i:
            add_narrow(tensors, sums, start, let(first_single + i), 1)
        with loop(wide_quads) as i:
            add_wide(tensors, sums, start, let(first_wide + i))

    def body(**tensors: Any) -> None:
        layout.emit(multiply, tensors)

    pointers = [("x", "uint8"), ("weights", "int8"), ("wide_weights", "int16")]
    pointers += [(name, "int32") for name in ("offsets", "wide_offsets", "table", "bias")]
    pointers += [("multiplier", "float32"), ("y", "uint8"), ("other", "uint8")]
    return kernel(pointers, SCALARS, body)
