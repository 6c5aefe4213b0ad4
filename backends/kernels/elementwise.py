"""Operators that work value by value, over up to four strided axes.

Plain loops: the innermost one has unit steps wherever the memory allows, and LLVM makes vectors of
it. All integer formulas are those of `planish.ir.integer`.
"""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

from tvm.script import tirx as T

from .instructions import ANY, nearest_int, requantize, spread


def quantized(x: Any, scale: Any, lo: Any, hi: Any, zero_point: Any, lanes: int) -> Any:
    """Return `clamp(rne(x / scale), lo, hi) + zero_point` as int32; NaN becomes lo.

    A maximum with a NaN on its left gives its right side.
    """
    lowest, highest = (spread(T.Cast("float32", bound), lanes) for bound in (lo, hi))
    clamped = T.min(T.max(x / spread(scale, lanes), lowest), highest)
    return nearest_int(clamped, lanes) + spread(zero_point, lanes)


def build_map(
    operator: str,
    x_dtype: str,
    y_dtype: str,
    unit_x: bool,
    unit_y: bool,
    parallel: bool = False,
) -> Any:
    """One value in, one value out.

    Args:
        operator: "copy" (cast), "shift" (add x_zero_point), "clamp", "requantize", "table",
            "quantize" or "dequantize".
        x_dtype: Of the input in memory.
        y_dtype: Of the output in memory.
        unit_x: Whether the innermost step of x is 1.
        unit_y: Whether the innermost step of y is 1.
        parallel: Share the outer axes between threads.
    """
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def kernel(
        x: T.handle(x_dtype),
        y: T.handle(y_dtype),
        table: T.handle("uint8"),
        n0: T.int32,
        n1: T.int32,
        n2: T.int32,
        n3: T.int32,
        x0: T.int32,
        x1: T.int32,
        x2: T.int32,
        x3: T.int32,
        y0: T.int32,
        y1: T.int32,
        y2: T.int32,
        y3: T.int32,
        scale: T.float32,
        x_zero_point: T.int32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), x_dtype, data=x)
        Y = T.decl_buffer((ANY,), y_dtype, data=y)
        entry = T.decl_buffer((ANY,), "uint8", data=table)
        for outer in loop(n0 * n1):
            for j in T.serial(n2):
                x_at: T.let[T.int32] = outer // n1 * x0 + outer % n1 * x1 + j * x2
                y_at: T.let[T.int32] = outer // n1 * y0 + outer % n1 * y1 + j * y2
                for k in T.serial(n3):
                    value: T.let = X[x_at + (k if unit_x else k * x3)]
                    if operator == "copy":
                        Y[y_at + (k if unit_y else k * y3)] = T.Cast(y_dtype, value)
                    elif operator == "shift":
                        Y[y_at + (k if unit_y else k * y3)] = T.Cast(
                            y_dtype, T.Cast("int32", value) + x_zero_point
                        )
                    elif operator == "clamp":
                        Y[y_at + (k if unit_y else k * y3)] = T.Cast(
                            y_dtype, T.max(T.min(T.Cast("int32", value), hi), lo)
                        )
                    elif operator == "requantize":
                        Y[y_at + (k if unit_y else k * y3)] = T.Cast(
                            y_dtype,
                            requantize(
                                T.Cast("int32", value) - x_zero_point, scale, lo, hi, zero_point, 1
                            ),
                        )
                    elif operator == "table":
                        Y[y_at + (k if unit_y else k * y3)] = T.Cast(
                            y_dtype, entry[T.Cast("int32", value)]
                        )
                    elif operator == "quantize":
                        Y[y_at + (k if unit_y else k * y3)] = T.Cast(
                            y_dtype, quantized(value, scale, lo, hi, zero_point, 1)
                        )
                    else:
                        Y[y_at + (k if unit_y else k * y3)] = (
                            T.Cast("float32", T.Cast("int32", value) - x_zero_point) * scale
                        )

    return kernel


def build_two(
    operator: str, storage: str, steps: tuple[int, int, int], parallel: bool = False
) -> Any:
    """Two values in, one out: `requantize(total, scale)`; a and b broadcast.

    The total of each operator:

    - "add": `a * a_number + b * b_number + offset`; the offset holds both zero points;
    - "mul": `(a - a_number) * (b - b_number)`.

    `steps` are the innermost steps of a, b and y that are known at compile time: 1, or 0 for a side
    that repeats; -1 is any other, given at run time.
    """
    loop = T.parallel if parallel else T.serial
    a_step, b_step, y_step = steps

    @T.prim_func(private=True)
    def kernel(
        a: T.handle(storage),
        b: T.handle(storage),
        y: T.handle(storage),
        n0: T.int32,
        n1: T.int32,
        n2: T.int32,
        n3: T.int32,
        a0: T.int32,
        a1: T.int32,
        a2: T.int32,
        a3: T.int32,
        b0: T.int32,
        b1: T.int32,
        b2: T.int32,
        b3: T.int32,
        y0: T.int32,
        y1: T.int32,
        y2: T.int32,
        y3: T.int32,
        a_number: T.int32,
        b_number: T.int32,
        offset: T.int32,
        scale: T.float32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        A = T.decl_buffer((ANY,), storage, data=a)
        B = T.decl_buffer((ANY,), storage, data=b)
        Y = T.decl_buffer((ANY,), storage, data=y)
        for outer in loop(n0 * n1):
            for j in T.serial(n2):
                a_at: T.let[T.int32] = outer // n1 * a0 + outer % n1 * a1 + j * a2
                b_at: T.let[T.int32] = outer // n1 * b0 + outer % n1 * b1 + j * b2
                y_at: T.let[T.int32] = outer // n1 * y0 + outer % n1 * y1 + j * y2
                for k in T.serial(n3):
                    left: T.let[T.int32] = T.Cast(
                        "int32", A[a_at + k * (a3 if a_step < 0 else a_step)]
                    )
                    right: T.let[T.int32] = T.Cast(
                        "int32", B[b_at + k * (b3 if b_step < 0 else b_step)]
                    )
                    total: T.let[T.int32] = (
                        left * a_number + right * b_number + offset
                        if operator == "add"
                        else (left - a_number) * (right - b_number)
                    )
                    Y[y_at + k * (y3 if y_step < 0 else y_step)] = T.Cast(
                        storage, requantize(total, scale, lo, hi, zero_point, 1)
                    )

    return kernel
