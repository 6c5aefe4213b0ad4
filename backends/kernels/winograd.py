"""3x3 convolution of stride 1 by Winograd's minimal filtering, in integers and exact.

F(m, 3) computes m outputs of a row of m + 2 inputs with m + 2 products instead of 3 * m; in two
dimensions F(4, 3) needs 36 products for 16 outputs of 9 terms each, a quarter.

1. Weights: `U = G w G'` in int16, at every call. They would be eight times as large as w, and to
   fetch them from memory takes longer than to make them in the cache.
2. Inputs: each window d of (m + 2) x (m + 2) becomes `V = B d B'`, in int16.
3. Products: for each of the (m + 2)**2 positions, a matrix of V (tiles x input channels) times one
   of U (input x output channels), in pairs of input channels, summed in int32.
4. Outputs: `A M A'` of each tile, which is the wanted sums times the rows' scales.

Why it is exact. The rows of the weight transform G are multiplied by their denominators, so that U
consists of integers: F(4, 3) has |U| <= 49 * 128 = 6272. Inputs are 0..255, so |V| <= 12750. Both
fit int16, and a pair of products fits int32. From there on everything is modulo 2**32. What comes
out is `y * scale` modulo 2**32 with `scale = 9 * 2**k`, k <= 6: times the inverse of 9 modulo 2**32
that is `y * 2**k`, and if |y| < 2**25 an arithmetic shift leaves y. The weights are known when a
network is compiled: `lower.winograd` proves |y| < 2**25 for each channel.

Source: Lavin and Gray 2015, "Fast algorithms for convolutional neural networks", section 4; the
rows without fractions and the division modulo 2**32 are planish's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .epilogue import SCALARS, Epilogue, Result
from .instructions import INSTRUCTIONS, pair_dot
from .statements import T, kernel, let, load, local, loop, store

Rows = list[Any]


@dataclass(frozen=True)
class Form:
    """One size of the algorithm.

    Attributes:
        outputs: Outputs of a tile along one axis: m.
        weight_row: The transform G of 3 weights, times its denominators.
        input_row: The transform B of m + 2 inputs.
        output_row: The transform A of m + 2 sums; gives m.
        scales: What each output of `output_row` is multiplied with: an odd number times a power of
            two. All have the same odd number.
    """

    outputs: int
    weight_row: Callable[[Rows], Rows]
    input_row: Callable[[Rows], Rows]
    output_row: Callable[[Rows], Rows]
    scales: tuple[int, ...]

    @property
    def window(self) -> int:
        """Inputs of a tile along one axis."""
        return self.outputs + 2

    def undo(self, row: int, column: int) -> tuple[int, int]:
        """Return (factor, shift): an output times the factor, modulo 2**32, shifted right, is y."""
        scale = self.scales[row] * self.scales[column]
        shift = (scale & -scale).bit_length() - 1
        inverse = pow(scale >> shift, -1, 1 << 32)
        return inverse - (inverse >> 31 << 32), shift


def _weights_of_2(w: Rows) -> Rows:
    ends = let(w[0] + w[2])
    return [let(w[0] + w[0]), let(ends + w[1]), let(ends - w[1]), let(w[2] + w[2])]


def _weights_of_4(w: Rows) -> Rows:
    ends, far, twice = let(w[0] + w[2]), let(w[0] + w[2] * 4), let(w[1] + w[1])
    inner = [let(ends + w[1]), let(ends - w[1]), let(far + twice), let(far - twice)]
    return [w[0], *inner, w[2]]


def _inputs_of_2(d: Rows) -> Rows:
    return [let(d[0] - d[2]), let(d[1] + d[2]), let(d[2] - d[1]), let(d[1] - d[3])]


def _outputs_of_2(m: Rows) -> Rows:
    return [let(m[0] + m[1] + m[2]), let(m[1] - m[2] - m[3])]


def _inputs_of_4(d: Rows) -> Rows:
    even, odd = let(d[4] - d[2] * 4), let(d[3] - d[1] * 4)
    near, far = let(d[4] - d[2]), let(d[3] - d[1])
    twice = let(far + far)
    first = let(d[0] * 4 + even - d[2])
    last = let(d[5] - d[3] - twice - twice)
    inner = [let(even + odd), let(even - odd), let(near + twice), let(near - twice)]
    return [first, *inner, last]


def _outputs_of_4(m: Rows) -> Rows:
    sum_1, sum_2 = let(m[1] + m[2]), let(m[3] + m[4])
    difference_1, difference_2 = let(m[2] - m[1]), let(m[3] - m[4])
    return [
        let(m[0] * 6 - sum_1 * 4 + sum_2),
        let(difference_1 + difference_1 + difference_2),
        let(sum_2 - sum_1),
        let(difference_1 + difference_2 + difference_2 + m[5] * 6),
    ]


FORMS: dict[int, Form] = {
    2: Form(2, _weights_of_2, _inputs_of_2, _outputs_of_2, (2, 2)),
    4: Form(4, _weights_of_4, _inputs_of_4, _outputs_of_4, (24, 12, 6, 6)),
}


@dataclass(frozen=True)
class Sizes:
    """Extents of the scratch memory and the loops, shared with `lower.winograd`.

    Attributes:
        form: m of F(m, 3).
        lanes: int32 lanes of a vector.
        vectors: Vectors of output channels in a block.
        tiles: Tiles that are transformed, multiplied and transformed back at a time.
        channels: Input channels.
    """

    form: int
    lanes: int
    vectors: int
    tiles: int
    channels: int

    @property
    def input_row(self) -> int:
        """int16 elements of one tile's channels, in whole vectors."""
        return -(-self.channels // (2 * self.lanes)) * 2 * self.lanes

    @property
    def input_plane(self) -> int:
        """int16 elements of one of the (m + 2)**2 matrices of inputs.

        A power of two would map all matrices to the same few sets of the cache.
        """
        return _uneven(self.tiles * self.input_row, 32)

    @property
    def width(self) -> int:
        """Output channels of a block."""
        return self.lanes * self.vectors

    @property
    def output_plane(self) -> int:
        """int32 elements of one of the (m + 2)**2 matrices of sums."""
        return _uneven(self.tiles * self.width, 16)

    @property
    def weight_plane(self) -> int:
        """int16 elements of one of the (m + 2)**2 matrices of a block's weights."""
        return _uneven(-(-self.channels // 2) * 2 * self.width, 32)

    @property
    def planes(self) -> int:
        """(m + 2)**2."""
        return FORMS[self.form].window ** 2


def _uneven(elements: int, line: int) -> int:
    """Return an odd number of cache lines, each of `line` elements."""
    return (-(-elements // line) | 1) * line


def build(
    instruction: str,
    form: int,
    lanes: int,
    vectors: int,
    rows: int,
    tiles: int,
    channels: int,
    pixels: tuple[int, int, int],
    x_steps: tuple[int, int, int],
    y_steps: tuple[int, int, int],
    other_steps: tuple[int, int, int] | None,
    blocks: int,
    kept: int,
    workers: int = 1,
    by_blocks: bool = False,
    narrow: bool = False,
    unbounded: bool = True,
    clamped: bool = True,
    shifted: bool = True,
) -> Any:
    """Return the kernel.

    Args:
        instruction: A name in INSTRUCTIONS.
        form: m of F(m, 3): 2 or 4.
        lanes: int32 lanes of a vector.
        vectors: Vectors of output channels in a block.
        rows: Tiles whose products share a weight in registers.
        tiles: Tiles transformed at a time, no more than an image has.
        channels: Input channels.
        pixels: (images, height, width) of the output, no smaller than a tile.
        x_steps: Elements from one image, row and pixel to the next in x.
        y_steps: The same in y.
        other_steps: The same in the residual's other summand, if there is one.
        blocks: Blocks of output channels.
        kept: Blocks whose transformed weights are kept for all groups of tiles: all, or 1 if
            there is one group.
        workers: Tasks that run in parallel, each with scratch memory of its own.
        by_blocks: Workers share the blocks, not the groups of tiles.
        narrow: The last vector of the last block has half its lanes.
        unbounded: See `Epilogue`, as for the next two.
        clamped: See there.
        shifted: See there.
    """
    storage = INSTRUCTIONS[instruction].storage
    algorithm, sizes = FORMS[form], Sizes(form, lanes, vectors, tiles, channels)
    images, height, width = pixels
    across = -(-width // form)
    per_image = -(-height // form) * across
    groups = -(-per_image // tiles)
    steps = -(-channels // 2)
    finish = Epilogue(lanes, other_steps is not None, unbounded, clamped, shifted)

    def offsets(size: int, steps: tuple[int, int, int]) -> list[list[int]]:
        return [[r * steps[1] + c * steps[2] for c in range(size)] for r in range(size)]

    def place(tile: Any, image: Any, steps: tuple[int, int, int]) -> Any:
        """Return where a tile begins; the last ones of an image start early."""
        line = T.min(tile // across * form, height - form)
        column = T.min(tile % across * form, width - form)
        return let(image * steps[0] + line * steps[1] + column * steps[2])

    def transform_square(values: list[Rows], transform: Callable[[Rows], Rows]) -> list[Rows]:
        """Return `T v T'` of a square, [row][column]."""
        columns = [transform([row[c] for row in values]) for c in range(len(values))]
        return [transform([column[r] for column in columns]) for r in range(len(columns[0]))]

    def transform_weights(weights: Any, made: Any, block: Any, own: Any) -> None:
        pair = 2 * lanes
        with loop(steps) as s:
            for v in range(vectors):
                first = let(((block * steps + s) * vectors + v) * (9 * pair))
                taps = [
                    let(T.Cast(f"int16x{pair}", load(weights, first + tap * pair, pair)))
                    for tap in range(9)
                ]
                square = transform_square([taps[0:3], taps[3:6], taps[6:9]], algorithm.weight_row)
                for plane, value in enumerate(value for row in square for value in row):
                    at = own + (plane * sizes.weight_plane + v * pair) + s * (2 * sizes.width)
                    store(made, at, value, pair)

    def transform_inputs(x: Any, inputs: Any, first: Any, image: Any, own: Any) -> None:
        wide = 2 * lanes
        with loop(tiles) as i:
            start = place(first + i, image, x_steps)
            with loop(sizes.input_row // wide) as part:
                window = [
                    [
                        let(T.Cast(f"int16x{wide}", load(x, start + part * wide + distance, wide)))
                        for distance in distances
                    ]
                    for distances in offsets(algorithm.window, x_steps)
                ]
                square = transform_square(window, algorithm.input_row)
                for plane, value in enumerate(value for row in square for value in row):
                    at = own + plane * sizes.input_plane + i * sizes.input_row + part * wide
                    store(inputs, at, value, wide)

    def multiply(made: Any, inputs: Any, sums: Any, own: tuple[Any, Any, Any]) -> None:
        with loop(sizes.planes) as plane, loop(-(-tiles // rows)) as i:
            first = let(T.min(i * rows, tiles - rows))
            totals = [local(sizes.width, "int32") for _ in range(rows)]
            for total in totals:
                for v in range(vectors):
                    store(total, v * lanes, T.broadcast(T.int32(0), lanes), lanes)
            start = let(own[1] + plane * sizes.input_plane + first * sizes.input_row)
            with loop(steps) as s:
                at = own[0] + plane * sizes.weight_plane + s * (2 * sizes.width)
                packed = [let(load(made, at + v * 2 * lanes, 2 * lanes)) for v in range(vectors)]
                for t, total in enumerate(totals):
                    pair = inputs.vload([start + (t * sizes.input_row + s * 2)], "int16x2")
                    both = T.broadcast(T.reinterpret("int32", pair), lanes)
                    shared = let(T.reinterpret(f"int16x{2 * lanes}", both))
                    for v, weight in enumerate(packed):
                        so_far = load(total, v * lanes, lanes)
                        # With VNNI, LLVM makes one vpdpwssd of the two.
                        store(total, v * lanes, so_far + pair_dot(lanes, shared, weight), lanes)
            for t, total in enumerate(totals):
                at = own[2] + plane * sizes.output_plane + (first + t) * sizes.width
                for v in range(vectors):
                    store(sums, at + v * lanes, load(total, v * lanes, lanes), lanes)

    def transform_outputs(tensors: Any, first: Any, image: Any, block: Any, own: Any) -> None:
        with loop(tiles) as i:
            y_first = place(first + i, image, y_steps)
            other_first = place(first + i, image, other_steps) if other_steps else None
            for v in range(vectors):
                channel = let((block * vectors + v) * lanes)
                bias = let(load(tensors["bias"], channel, lanes))
                factor = let(load(tensors["multiplier"], channel, lanes))
                start = let(own + i * sizes.width + v * lanes)
                products = [
                    [
                        let(load(tensors["sums"], start + plane * sizes.output_plane, lanes))
                        for plane in range(r * algorithm.window, (r + 1) * algorithm.window)
                    ]
                    for r in range(algorithm.window)
                ]
                half = block == blocks - 1 if narrow and v == vectors - 1 else None
                square = transform_square(products, algorithm.output_row)
                results: list[Result] = []
                for r, row in enumerate(square):
                    for c, value in enumerate(row):
                        y_at = y_first + channel + offsets(form, y_steps)[r][c]
                        other_at = None
                        if other_steps is not None:
                            other_at = other_first + channel + offsets(form, other_steps)[r][c]
                        total = let(unscaled(value, r, c) + bias)
                        results.append(Result(total, factor, y_at, other_at, half=half))
                finish.store(tensors, results)

    def unscaled(value: Any, row: int, column: int) -> Any:
        inverse, shift = algorithm.undo(row, column)
        scaled = value if inverse == 1 else value * T.broadcast(T.int32(inverse), lanes)
        return T.shift_right(scaled, T.broadcast(T.int32(shift), lanes))

    def body(**tensors: Any) -> None:
        with loop(workers, parallel=workers > 1) as worker:
            weights_at = let(worker * (kept * sizes.planes * sizes.weight_plane))
            inputs_at = let(worker * (sizes.planes * sizes.input_plane))
            sums_at = let(worker * (sizes.planes * sizes.output_plane))
            first_block, n_blocks = share(worker, blocks, by_blocks)
            first_group, n_groups = share(worker, images * groups, not by_blocks)
            if kept > 1:
                with loop(n_blocks) as b:
                    own = weights_at + (first_block + b) * (sizes.planes * sizes.weight_plane)
                    transform_weights(
                        tensors["weights"], tensors["made"], first_block + b, let(own)
                    )
            with loop(n_groups) as g:
                group = let(first_group + g)
                image = let(group // groups)
                first = let(T.min(group % groups * tiles, per_image - tiles))
                transform_inputs(tensors["x"], tensors["inputs"], first, image, inputs_at)
                with loop(n_blocks) as b:
                    block = let(first_block + b)
                    own = weights_at
                    if kept > 1:
                        own = let(weights_at + block * (sizes.planes * sizes.weight_plane))
                    else:
                        transform_weights(tensors["weights"], tensors["made"], block, own)
                    places = (own, inputs_at, sums_at)
                    multiply(tensors["made"], tensors["inputs"], tensors["sums"], places)
                    transform_outputs(tensors, first, image, block, sums_at)

    def share(worker: Any, count: int, shared: bool) -> tuple[Any, Any]:
        """Return a worker's first and how many of `count` it has."""
        if not shared or workers == 1:
            return 0, count
        first = let(worker * count // workers)
        return first, let((worker + 1) * count // workers - first)

    pointers = [("x", storage), ("weights", "int8"), ("bias", "int32"), ("multiplier", "float32")]
    pointers += [("y", storage), ("other", storage)]
    pointers += [("made", "int16"), ("inputs", "int16"), ("sums", "int32")]
    return kernel(pointers, SCALARS, body)
