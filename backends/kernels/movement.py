"""Kernels that only move values."""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

from tvm.script import tirx as T

from .instructions import ANY


def build_gather(dtype: str, parallel: bool = False) -> Any:
    """`y[y_table[i] + k] = x[x_table[i] + k]`, k in a run: any reordering, by a stored table."""
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def gather(
        x: T.handle(dtype),
        y: T.handle(dtype),
        table: T.handle("int32"),
        count: T.int32,
        run: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), dtype, data=x)
        Y = T.decl_buffer((ANY,), dtype, data=y)
        offset = T.decl_buffer((ANY,), "int32", data=table)
        for i in loop(count):
            x_at: T.let[T.int32] = offset[2 * i]
            y_at: T.let[T.int32] = offset[2 * i + 1]
            for k in T.serial(run):
                Y[y_at + k] = X[x_at + k]

    return gather


def build_fill_halo(dtype: str) -> Any:
    """Write the zero point around each image of a channels-last activation.

    In memory the border of an image is: a head (rows above, and the left of the first row), a gap
    after each row but the last (its right, and the left of the next), and a tail.
    """

    @T.prim_func(private=True)
    def fill_halo(
        y: T.handle(dtype),
        value: T.int32,
        images: T.int32,
        image: T.int32,
        head: T.int32,
        gaps: T.int32,
        first_gap: T.int32,
        row: T.int32,
        gap: T.int32,
        tail_at: T.int32,
        tail: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        Y = T.decl_buffer((ANY,), dtype, data=y)
        for n in T.serial(images):
            for i in T.serial(head):
                Y[n * image + i] = T.Cast(dtype, value)
            for g in T.serial(gaps):
                for i in T.serial(gap):
                    Y[n * image + first_gap + g * row + i] = T.Cast(dtype, value)
            for i in T.serial(tail):
                Y[n * image + tail_at + i] = T.Cast(dtype, value)

    return fill_halo


def build_take(x_dtype: str, y_dtype: str, index_dtype: str) -> Any:
    """`y[o, i, k] = x[o, index[i], k] + shift`: rows by number, as an embedding reads its table.

    An index that lies outside reads the nearest row: torch raises an error there, and compiled code
    must at least stay inside the table.
    """

    @T.prim_func(private=True)
    def take(
        x: T.handle(x_dtype),
        y: T.handle(y_dtype),
        indices: T.handle(index_dtype),
        outer: T.int32,
        count: T.int32,
        inner: T.int32,
        size: T.int32,
        x_outer: T.int32,
        x_row: T.int32,
        y_outer: T.int32,
        y_row: T.int32,
        shift: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), x_dtype, data=x)
        Y = T.decl_buffer((ANY,), y_dtype, data=y)
        index = T.decl_buffer((ANY,), index_dtype, data=indices)
        for o in T.serial(outer):
            for i in T.serial(count):
                last: T.let = T.Cast(index_dtype, size - 1)
                row: T.let[T.int32] = T.Cast(
                    "int32", T.max(T.min(index[i], last), T.Cast(index_dtype, 0))
                )
                for k in T.serial(inner):
                    Y[o * y_outer + i * y_row + k] = T.Cast(
                        y_dtype, T.Cast("int32", X[o * x_outer + row * x_row + k]) + shift
                    )

    return take
