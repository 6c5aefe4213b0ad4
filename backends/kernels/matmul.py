"""Products of two activations: b is packed at run time, then used as dot_product uses weights.

b is moved so that it fits the instruction's right operand: `value = b - moved`, where moved is b's
zero point for `vpmaddwd` (int16) and 128 for `vpdpbusd` (int8). With `delta = moved - zb`,

    sum((a - za) * (b - zb)) = sum(a * value) + delta * sum(a) - za * (sum(value) + k * delta):

the accumulators start at a term of their row plus a term of their column. An instruction that
takes `a - s` in place of a (`Instruction.shift`) has `za - s` in place of za, and as each row's sum
is that of a itself, `- delta * s * k` joins the term of the column. All of it is exact, modulo
2**32. Packed b is [matrix, block, step, lane, neighbour], zero past k, in the instruction's order
(see `instructions.Instruction`).
"""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

from tvm.script import tirx as T

from .instructions import ANY, INSTRUCTIONS, requantize


def build_pack(
    instruction: str, lanes: int, vectors: int, beside: str, parallel: bool = False
) -> Any:
    """Pack the matrices of b, and sum up each column's term.

    Args:
        instruction: A name in INSTRUCTIONS.
        lanes: int32 lanes of a vector.
        vectors: Vectors in a block of columns.
        beside: The axis whose values lie side by side in memory: "k" or "n".
        parallel: Share the blocks between threads.
    """
    dot = INSTRUCTIONS[instruction]
    group, storage, packed = dot.group, dot.storage, dot.weight
    width = lanes * vectors
    # Which of `group` rows of `lanes` values stands at each place of a vector of packed b.
    places = {dot.position(i, j, lanes): j * lanes + i for i in range(lanes) for j in range(group)}
    order = [places[place] for place in range(lanes * group)]

    def zipped(buffer: Any, at: Any, step: Any) -> Any:
        """`group` rows of b, `lanes` of each, in the order of packed b."""
        return T.Shuffle([buffer[T.ramp(at + j * step, 1, lanes)] for j in range(group)], order)

    def moved_from(values: Any, moved: Any, count: int) -> Any:
        """Values of b as packed ones; 8 bits wrap around to the right value."""
        return T.Cast(f"{packed}x{count}", values) - T.broadcast(T.Cast(packed, moved), count)

    def place(column: Any, j: Any) -> Any:
        """Where neighbour j of a block's column stands in a step of packed b."""
        vector = column // lanes * (lanes * group)
        return vector + dot.position(column % lanes, j, lanes)

    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def kernel(
        b: T.handle(storage),
        out: T.handle(packed),
        terms: T.handle("int32"),
        matrix_table: T.handle("int32"),
        n_matrices: T.int32,
        n_blocks: T.int32,
        columns: T.int32,
        depth: T.int32,
        k_step: T.int32,
        n_step: T.int32,
        moved: T.int32,
        delta: T.int32,
        factor: T.int32,
        offset: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        B = T.decl_buffer((ANY,), storage, data=b)
        P = T.decl_buffer((ANY,), packed, data=out)
        C = T.decl_buffer((ANY,), "int32", data=terms)
        matrix_offset = T.decl_buffer((ANY,), "int32", data=matrix_table)
        for task in loop(n_matrices * n_blocks):
            start: T.let[T.int32] = matrix_offset[task // n_blocks]
            first: T.let[T.int32] = task % n_blocks * width
            steps: T.let[T.int32] = (depth + (group - 1)) // group
            whole: T.let[T.int32] = depth // group
            total = T.alloc_buffer((width,), "int32")
            total[T.ramp(0, 1, width)] = T.broadcast(0, width)
            for s in T.serial(whole):
                at: T.let[T.int32] = (task * steps + s) * (width * group)
                for v in T.unroll(vectors):
                    if beside == "k":
                        for lane in T.unroll(lanes):
                            # Columns past the last one repeat it: nobody reads their results.
                            n: T.let[T.int32] = T.min(first + v * lanes + lane, columns - 1)
                            column_at: T.let[T.int32] = at + place(v * lanes + lane, 0)
                            found = T.alloc_buffer((group,), packed)
                            found[T.ramp(0, 1, group)] = moved_from(
                                B[T.ramp(start + n * n_step + s * group, 1, group)], moved, group
                            )
                            if dot.order == "neighbours":
                                for j in T.unroll(group):
                                    P[at + place(v * lanes + lane, j)] = found[j]
                            elif dot.order == "halves":
                                for parity in T.unroll(2):
                                    P[T.ramp(column_at + parity * (2 * lanes), 1, 2)] = found[
                                        T.ramp(parity, 2, 2)
                                    ]
                            else:
                                P[T.ramp(column_at, 1, group)] = found[T.ramp(0, 1, group)]
                    else:
                        P[T.ramp(at + v * lanes * group, 1, lanes * group)] = moved_from(
                            zipped(B, start + s * group * k_step + first + v * lanes, k_step),
                            moved,
                            lanes * group,
                        )
                    total[T.ramp(v * lanes, 1, lanes)] = dot.multiply(
                        lanes,
                        total[T.ramp(v * lanes, 1, lanes)],
                        dot.operand(T.int32(dot.ones)),
                        P[T.ramp(at + v * lanes * group, 1, lanes * group)],
                    )
            for tail in T.serial(steps - whole):
                end: T.let[T.int32] = (task * steps + whole + tail) * (width * group)
                for i in T.serial(width):
                    column: T.let[T.int32] = start + T.min(first + i, columns - 1) * n_step
                    for j in T.serial(group):
                        k: T.let[T.int32] = whole * group + j
                        P[end + place(i, j)] = T.Cast(packed, 0)
                        if k < depth:
                            value: T.let[T.int32] = T.Cast("int32", B[column + k * k_step]) - moved
                            P[end + place(i, j)] = T.Cast(packed, value)
                            total[i] = total[i] + value
            C[T.ramp(task * width, 1, width)] = (
                total[T.ramp(0, 1, width)] + T.broadcast(depth * delta, width)
            ) * T.broadcast(factor, width) + T.broadcast(offset, width)

    return kernel


def build_row_sums(storage: str, parallel: bool = False) -> Any:
    """`out[row] = factor * sum of the row`: each row's term."""
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def kernel(
        a: T.handle(storage),
        out: T.handle("int32"),
        matrix_table: T.handle("int32"),
        n_matrices: T.int32,
        rows: T.int32,
        depth: T.int32,
        step: T.int32,
        factor: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        A = T.decl_buffer((ANY,), storage, data=a)
        O = T.decl_buffer((ANY,), "int32", data=out)  # noqa: E741
        matrix_offset = T.decl_buffer((ANY,), "int32", data=matrix_table)
        for task in loop(n_matrices * rows):
            start: T.let[T.int32] = matrix_offset[task // rows] + task % rows * step
            total = T.alloc_buffer((1,), "int32")
            total[0] = 0
            for i in T.serial(depth):
                total[0] = total[0] + T.Cast("int32", A[start + i])
            O[task] = total[0] * factor

    return kernel


def build(
    instruction: str,
    lanes: int,
    vectors: int,
    rows: int,
    row_terms: bool = False,
    real: bool = False,
    partial: bool = False,
    parallel: bool = False,
) -> Any:
    """Multiply a by packed b, and requantize.

    Args:
        instruction: A name in INSTRUCTIONS.
        lanes: int32 lanes of a vector.
        vectors: Vectors of columns in a block.
        rows: Rows of a tile; the last tile of a matrix starts early instead of being short.
        row_terms: Whether accumulators start at a term of their row too.
        real: Write `float32(accumulator) * multiplier` instead (matmul_dq).
        partial: The last block of a row stores only its own columns (rows without padding).
        parallel: Share the tasks between threads.
    """
    dot = INSTRUCTIONS[instruction]
    group, storage, packed = dot.group, dot.storage, dot.weight
    width = lanes * vectors
    result = "float32" if real else storage
    loop = T.parallel if parallel else T.serial

    def finished(accumulator: Any, multiplier: Any, lo: Any, hi: Any, zero_point: Any) -> Any:
        factors = T.broadcast(multiplier, lanes)
        if real:
            return T.Cast(f"float32x{lanes}", accumulator) * factors
        return requantize(accumulator, factors, lo, hi, zero_point, lanes)

    @T.prim_func(private=True)
    def kernel(
        a: T.handle(storage),
        b: T.handle(packed),
        column_terms: T.handle("int32"),
        terms: T.handle("int32"),
        y: T.handle(result),
        matrix_table: T.handle("int32"),
        n_matrices: T.int32,
        n_chunks: T.int32,
        chunk_tiles: T.int32,
        n_blocks: T.int32,
        columns: T.int32,
        n_rows: T.int32,
        steps: T.int32,
        a_row: T.int32,
        y_row: T.int32,
        multiplier: T.float32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        A = T.decl_buffer((ANY,), storage, data=a)
        B = T.decl_buffer((ANY,), packed, data=b)
        C = T.decl_buffer((ANY,), "int32", data=column_terms)
        R = T.decl_buffer((ANY,), "int32", data=terms)
        Y = T.decl_buffer((ANY,), result, data=y)
        # Of each product: the offsets of a and y, and the numbers of its matrices a and b.
        matrix = T.decl_buffer((ANY,), "int32", data=matrix_table)
        for task in loop(n_matrices * n_chunks * n_blocks):
            block: T.let[T.int32] = task % n_blocks
            tile_first: T.let[T.int32] = task // n_blocks % n_chunks * chunk_tiles
            m: T.let[T.int32] = task // n_blocks // n_chunks * 4
            a_first: T.let[T.int32] = matrix[m]
            y_first: T.let[T.int32] = matrix[m + 1] + block * width
            a_terms: T.let[T.int32] = matrix[m + 2] * n_rows
            b_block: T.let[T.int32] = matrix[m + 3] * n_blocks + block
            tiles: T.let[T.int32] = (n_rows + (rows - 1)) // rows
            accumulator = T.alloc_buffer((rows * width,), "int32")
            weight = T.alloc_buffer((width * group,), packed)
            for i in T.serial(T.min(chunk_tiles, tiles - tile_first)):
                first: T.let[T.int32] = T.min((tile_first + i) * rows, n_rows - rows)
                for p in T.unroll(rows):
                    for v in T.unroll(vectors):
                        at: T.let[T.int32] = (p * vectors + v) * lanes
                        accumulator[T.ramp(at, 1, lanes)] = C[
                            T.ramp(b_block * width + v * lanes, 1, lanes)
                        ]
                        if row_terms:
                            accumulator[T.ramp(at, 1, lanes)] = accumulator[
                                T.ramp(at, 1, lanes)
                            ] + T.broadcast(R[a_terms + first + p], lanes)
                for s in T.serial(steps):
                    for v in T.unroll(vectors):
                        weight[T.ramp(v * lanes * group, 1, lanes * group)] = B[
                            T.ramp(
                                ((b_block * steps + s) * vectors + v) * (lanes * group),
                                1,
                                lanes * group,
                            )
                        ]
                    for p in T.unroll(rows):
                        shared: T.let[T.int32] = T.reinterpret(
                            "int32",
                            A.vload(
                                [a_first + (first + p) * a_row + s * group], f"{storage}x{group}"
                            ),
                        )
                        for v in T.unroll(vectors):
                            sum_at: T.let[T.int32] = (p * vectors + v) * lanes
                            accumulator[T.ramp(sum_at, 1, lanes)] = dot.multiply(
                                lanes,
                                accumulator[T.ramp(sum_at, 1, lanes)],
                                dot.operand(shared),
                                weight[T.ramp(v * lanes * group, 1, lanes * group)],
                            )
                for p in T.unroll(rows):
                    for v in T.unroll(vectors):
                        y_at: T.let[T.int32] = y_first + (first + p) * y_row + v * lanes
                        own: T.let[T.int32] = columns - block * width - v * lanes
                        values = T.alloc_buffer((lanes,), result)
                        values[T.ramp(0, 1, lanes)] = T.Cast(
                            f"{result}x{lanes}",
                            finished(
                                accumulator[T.ramp((p * vectors + v) * lanes, 1, lanes)],
                                multiplier,
                                lo,
                                hi,
                                zero_point,
                            ),
                        )
                        if partial:
                            if own >= lanes:
                                Y[T.ramp(y_at, 1, lanes)] = values[T.ramp(0, 1, lanes)]
                            else:
                                for c in T.serial(T.max(own, 0)):
                                    Y[y_at + c] = values[c]
                        else:
                            Y[T.ramp(y_at, 1, lanes)] = values[T.ramp(0, 1, lanes)]

    return kernel
