"""Interpolation over channels-last activations, `lanes` channels at a time."""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

from tvm.script import tirx as T

from .instructions import ANY, requantize, spread


def build_resize(storage: str, lanes: int, parallel: bool = False) -> Any:
    """resize_i8: each output reads two rows and two columns with integer weights.

    The tables hold for each output row (column) two offsets and two weights. `offset` takes the
    zero point out of the sum: the weights of one output always add up to the same number, so that
    `sum(w * (x - zero_point))` is `sum(w * x) + offset`, exactly; every value is below 2**31.
    """
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def resize(
        x: T.handle(storage),
        y: T.handle(storage),
        row_table: T.handle("int32"),
        row_weights: T.handle("int32"),
        column_table: T.handle("int32"),
        column_weights: T.handle("int32"),
        images: T.int32,
        height: T.int32,
        width: T.int32,
        blocks: T.int32,
        x_image: T.int32,
        y_image: T.int32,
        y_row: T.int32,
        y_pixel: T.int32,
        multiplier: T.float32,
        offset: T.int32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), storage, data=x)
        Y = T.decl_buffer((ANY,), storage, data=y)
        row = T.decl_buffer((ANY,), "int32", data=row_table)
        tall = T.decl_buffer((ANY,), "int32", data=row_weights)
        column = T.decl_buffer((ANY,), "int32", data=column_table)
        wide = T.decl_buffer((ANY,), "int32", data=column_weights)
        for task in loop(images * height):
            image: T.let[T.int32] = task // height
            i: T.let[T.int32] = task % height
            total = T.alloc_buffer((lanes,), "int32")
            for j in T.serial(width):
                for block in T.serial(blocks):
                    total[T.ramp(0, 1, lanes)] = spread(offset, lanes)
                    for r in T.unroll(2):
                        for c in T.unroll(2):
                            total[T.ramp(0, 1, lanes)] = total[T.ramp(0, 1, lanes)] + spread(
                                tall[2 * i + r] * wide[2 * j + c], lanes
                            ) * T.Cast(
                                f"int32x{lanes}",
                                X[
                                    T.ramp(
                                        image * x_image
                                        + row[2 * i + r]
                                        + column[2 * j + c]
                                        + block * lanes,
                                        1,
                                        lanes,
                                    )
                                ],
                            )
                    Y[
                        T.ramp(image * y_image + i * y_row + j * y_pixel + block * lanes, 1, lanes)
                    ] = T.Cast(
                        f"{storage}x{lanes}",
                        requantize(
                            total[T.ramp(0, 1, lanes)],
                            spread(multiplier, lanes),
                            lo,
                            hi,
                            zero_point,
                            lanes,
                        ),
                    )

    return resize
