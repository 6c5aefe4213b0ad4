"""Operators that read a whole axis: softmax, layer normalization, means and sums.

Tables give where each row begins in x and y, so that any axis of any layout serves. The formulas
are those of `planish.ir.integer.normalization`: sums are integers, and float32 values are only
multiplied, divided, rooted and rounded, one IEEE operation at a time.
"""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

from tvm.script import tirx as T

from .instructions import ANY, nearest_int, requantize, spread, vector

# The scaled deviation's largest magnitude, 2**22, and the weight of its fraction bits, 2**-8.
DEVIATION_LIMIT = 4194304.0
FRACTION = 0.00390625


def build_softmax(storage: str, unit_x: bool, unit_y: bool, parallel: bool = False) -> Any:
    """`e = table[max - x]`, `y = requantize(e, multiplier / sum(e))`, row by row.

    Args:
        storage: Dtype of x and y in memory.
        unit_x: Whether a row's values lie side by side in x.
        unit_y: Whether they do in y.
        parallel: Share the rows between threads.
    """
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def kernel(
        x: T.handle(storage),
        y: T.handle(storage),
        table: T.handle("int32"),
        row_table: T.handle("int32"),
        rows: T.int32,
        count: T.int32,
        x_step: T.int32,
        y_step: T.int32,
        multiplier: T.float32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), storage, data=x)
        Y = T.decl_buffer((ANY,), storage, data=y)
        E = T.decl_buffer((ANY,), "int32", data=table)
        row = T.decl_buffer((ANY,), "int32", data=row_table)
        for i in loop(rows):
            x_at: T.let[T.int32] = row[2 * i]
            y_at: T.let[T.int32] = row[2 * i + 1]
            largest = T.alloc_buffer((1,), "int32")
            total = T.alloc_buffer((1,), "int32")
            ratio = T.alloc_buffer((1,), "float32")
            largest[0] = 0
            for j in T.serial(count):
                largest[0] = T.max(
                    largest[0], T.Cast("int32", X[x_at + (j if unit_x else j * x_step)])
                )
            total[0] = 0
            for j in T.serial(count):
                total[0] = (
                    total[0]
                    + E[largest[0] - T.Cast("int32", X[x_at + (j if unit_x else j * x_step)])]
                )
            ratio[0] = multiplier / T.Cast("float32", total[0])
            for j in T.serial(count):
                Y[y_at + (j if unit_y else j * y_step)] = T.Cast(
                    storage,
                    requantize(
                        E[largest[0] - T.Cast("int32", X[x_at + (j if unit_x else j * x_step)])],
                        ratio[0],
                        lo,
                        hi,
                        zero_point,
                        1,
                    ),
                )

    return kernel


def build_layer_norm(storage: str, parallel: bool = False) -> Any:
    """Mean and variance of each row as integers, then `deviation / root * gain + offset`.

    A row's values lie side by side in x and y. epsilon is `epsilon_high * 2**31 + epsilon_low`.
    """
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def kernel(
        x: T.handle(storage),
        y: T.handle(storage),
        gain: T.handle("float32"),
        offset: T.handle("int32"),
        row_table: T.handle("int32"),
        rows: T.int32,
        count: T.int32,
        epsilon_high: T.int32,
        epsilon_low: T.int32,
        x_zero_point: T.int32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), storage, data=x)
        Y = T.decl_buffer((ANY,), storage, data=y)
        G = T.decl_buffer((ANY,), "float32", data=gain)
        B = T.decl_buffer((ANY,), "int32", data=offset)
        row = T.decl_buffer((ANY,), "int32", data=row_table)
        for i in loop(rows):
            x_at: T.let[T.int32] = row[2 * i]
            y_at: T.let[T.int32] = row[2 * i + 1]
            total = T.alloc_buffer((1,), "int32")
            squares = T.alloc_buffer((1,), "int32")
            root = T.alloc_buffer((1,), "float32")
            inverse = T.alloc_buffer((1,), "float32")
            total[0] = 0
            squares[0] = 0
            # At most 2**15 values: neither sum leaves int32.
            for j in T.serial(count):
                value: T.let[T.int32] = T.Cast("int32", X[x_at + j]) - x_zero_point
                total[0] = total[0] + value
                squares[0] = squares[0] + value * value
            root[0] = T.call_llvm_pure_intrin(
                "float32",
                "llvm.sqrt",
                T.Cast(
                    "float32",
                    T.Cast("int64", count) * T.Cast("int64", squares[0])
                    - T.Cast("int64", total[0]) * T.Cast("int64", total[0])
                    + T.Cast("int64", epsilon_high) * T.int64(2147483648)
                    + T.Cast("int64", epsilon_low),
                ),
            )
            inverse[0] = T.float32(0)
            if root[0] > T.float32(0):
                inverse[0] = T.float32(1) / root[0]
            for j in T.serial(count):
                deviation: T.let[T.int32] = (
                    T.Cast("int32", X[x_at + j]) - x_zero_point
                ) * count - total[0]
                scaled: T.let[T.float32] = T.Cast("float32", deviation) * inverse[0] * G[j]
                clamped: T.let[T.float32] = T.max(
                    T.min(scaled, T.float32(DEVIATION_LIMIT)), T.float32(-DEVIATION_LIMIT)
                )
                Y[y_at + j] = T.Cast(
                    storage,
                    requantize(
                        nearest_int(clamped, 1) + B[j], T.float32(FRACTION), lo, hi, zero_point, 1
                    ),
                )

    return kernel


def build_mean(storage: str, lanes: int, unit_run: bool, parallel: bool = False) -> Any:
    """Sum of `x - x_zero_point` over some axes, requantized.

    A table gives where each result's values begin and where the result goes; `lanes` results that
    lie side by side in x and y are summed at once, in `blocks` blocks. The values of a sum are
    `parts` runs, whose offsets another table holds, of `length` values each.

    Args:
        storage: Dtype of x and y in memory.
        lanes: Results at once.
        unit_run: Whether the values of a run lie side by side.
        parallel: Share the results between threads.
    """
    loop = T.parallel if parallel else T.serial
    wide = vector("int32", lanes)

    @T.prim_func(private=True)
    def kernel(
        x: T.handle(storage),
        y: T.handle(storage),
        result_table: T.handle("int32"),
        part_table: T.handle("int32"),
        results: T.int32,
        blocks: T.int32,
        parts: T.int32,
        length: T.int32,
        run_step: T.int32,
        start: T.int32,
        multiplier: T.float32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), storage, data=x)
        Y = T.decl_buffer((ANY,), storage, data=y)
        result = T.decl_buffer((ANY,), "int32", data=result_table)
        part = T.decl_buffer((ANY,), "int32", data=part_table)
        for task in loop(results * blocks):
            x_at: T.let[T.int32] = result[task // blocks * 2] + task % blocks * lanes
            y_at: T.let[T.int32] = result[task // blocks * 2 + 1] + task % blocks * lanes
            total = T.alloc_buffer((lanes,), "int32")
            total[T.ramp(0, 1, lanes) if lanes > 1 else 0] = spread(start, lanes)
            for r in T.serial(parts):
                first: T.let[T.int32] = x_at + part[r]
                for j in T.serial(length):
                    at: T.let[T.int32] = first + (j if unit_run else j * run_step)
                    total[T.ramp(0, 1, lanes) if lanes > 1 else 0] = total[
                        T.ramp(0, 1, lanes) if lanes > 1 else 0
                    ] + T.Cast(wide, X[T.ramp(at, 1, lanes) if lanes > 1 else at])
            Y[T.ramp(y_at, 1, lanes) if lanes > 1 else y_at] = T.Cast(
                vector(storage, lanes),
                requantize(
                    total[T.ramp(0, 1, lanes) if lanes > 1 else 0],
                    spread(multiplier, lanes),
                    lo,
                    hi,
                    zero_point,
                    lanes,
                ),
            )

    return kernel
