"""Kernels that only move values."""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

from tvm.script import tirx as T

from .instructions import ANY


def build_gather(dtype: str, parallel: bool = False) -> Any:
    """`y[y_table[i]] = x[x_table[i]]`: any reordering, by tables that are made at load."""
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def gather(
        x: T.handle(dtype), y: T.handle(dtype), table: T.handle("int32"), count: T.int32
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), dtype, data=x)
        Y = T.decl_buffer((ANY,), dtype, data=y)
        offset = T.decl_buffer((ANY,), "int32", data=table)
        for i in loop(count):
            Y[offset[2 * i + 1]] = X[offset[2 * i]]

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
