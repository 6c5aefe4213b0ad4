"""Pooling over channels-last activations, `lanes` channels at a time."""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

from tvm.script import tirx as T

from .instructions import ANY, requantize, spread, vector


def build_max(storage: str, lanes: int, kernel: tuple[int, int], parallel: bool = False) -> Any:
    """Largest value of each window.

    Tables give the offsets of a window's rows and columns. One that would lie in the padding names
    a row or column of the same window instead: a maximum doesn't change when a value is seen twice.
    """
    rows, columns = kernel
    unroll = T.unroll if rows * columns <= 9 else T.serial
    dtype = vector(storage, lanes)
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def max_pool(
        x: T.handle(storage),
        y: T.handle(storage),
        row_table: T.handle("int32"),
        column_table: T.handle("int32"),
        images: T.int32,
        height: T.int32,
        width: T.int32,
        blocks: T.int32,
        x_image: T.int32,
        y_image: T.int32,
        y_row: T.int32,
        y_pixel: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), storage, data=x)
        Y = T.decl_buffer((ANY,), storage, data=y)
        row = T.decl_buffer((ANY,), "int32", data=row_table)
        column = T.decl_buffer((ANY,), "int32", data=column_table)
        for task in loop(images * height):
            image: T.let[T.int32] = task // height
            i: T.let[T.int32] = task % height
            largest = T.alloc_buffer((lanes,), storage)
            for j in T.serial(width):
                for block in T.serial(blocks):
                    largest[T.ramp(0, 1, lanes)] = spread(T.Cast(storage, 0), lanes)
                    for r in unroll(rows):
                        for c in unroll(columns):
                            largest[T.ramp(0, 1, lanes)] = T.max(
                                largest[T.ramp(0, 1, lanes)],
                                X.vload(
                                    [
                                        image * x_image
                                        + row[i * rows + r]
                                        + column[j * columns + c]
                                        + block * lanes
                                    ],
                                    dtype,
                                ),
                            )
                    Y[
                        T.ramp(image * y_image + i * y_row + j * y_pixel + block * lanes, 1, lanes)
                    ] = largest[T.ramp(0, 1, lanes)]

    return max_pool


def build_average(storage: str, lanes: int, parallel: bool = False) -> Any:
    """Sum of `x - x_zero_point` over each window, requantized by the window's own multiplier.

    Tables give each window's first and one-past-last row and column inside the image; padding adds
    nothing. Serves average and adaptive pooling.
    """
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def average_pool(
        x: T.handle(storage),
        y: T.handle(storage),
        multiplier: T.handle("float32"),
        row_table: T.handle("int32"),
        column_table: T.handle("int32"),
        images: T.int32,
        height: T.int32,
        width: T.int32,
        blocks: T.int32,
        x_image: T.int32,
        x_row: T.int32,
        x_pixel: T.int32,
        y_image: T.int32,
        y_row: T.int32,
        y_pixel: T.int32,
        x_zero_point: T.int32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), storage, data=x)
        Y = T.decl_buffer((ANY,), storage, data=y)
        M = T.decl_buffer((ANY,), "float32", data=multiplier)
        row = T.decl_buffer((ANY,), "int32", data=row_table)
        column = T.decl_buffer((ANY,), "int32", data=column_table)
        for task in loop(images * height):
            image: T.let[T.int32] = task // height
            i: T.let[T.int32] = task % height
            total = T.alloc_buffer((lanes,), "int32")
            for j in T.serial(width):
                n_rows: T.let[T.int32] = row[2 * i + 1] - row[2 * i]
                n_columns: T.let[T.int32] = column[2 * j + 1] - column[2 * j]
                for block in T.serial(blocks):
                    total[T.ramp(0, 1, lanes)] = T.broadcast(
                        0 - x_zero_point * n_rows * n_columns, lanes
                    )
                    for r in T.serial(n_rows):
                        for c in T.serial(n_columns):
                            total[T.ramp(0, 1, lanes)] = total[T.ramp(0, 1, lanes)] + T.Cast(
                                f"int32x{lanes}",
                                X[
                                    T.ramp(
                                        image * x_image
                                        + (row[2 * i] + r) * x_row
                                        + (column[2 * j] + c) * x_pixel
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
                            T.broadcast(M[i * width + j], lanes),
                            lo,
                            hi,
                            zero_point,
                            lanes,
                        ),
                    )

    return average_pool
