"""Dense and grouped convolution, and linear layers: an indirect matrix multiplication.

A table gives for each output pixel the offset of its window's first activation (so stride, image
borders and batch cost nothing here), and for each run of the window its offset from there. A run is
a stretch of neighbouring activations: a whole kernel row when its pixels lie side by side (channels
last, no dilation), else the channels of one tap. Each run is read `group` activations at a time, as
one 32-bit broadcast that all accumulators of a pixel share; it may read past its end, where the
packed weights are zero.

Why it is exact: every product and sum is an integer, modulo 2**32, in whatever order; padding holds
the zero point, and the packed bias holds `bias - zero_point * sum(weights)`.

A block is `vectors * lanes` output channels. A tile is `pixels` output pixels; the last tile of a
layer starts early instead of being short, and computes some pixels twice.
"""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

from tvm.script import tirx as T

from .instructions import ANY, INSTRUCTIONS, requantize


def build(
    instruction: str,
    lanes: int,
    vectors: int,
    pixels: int,
    residual: bool = False,
    grouped: bool = False,
    partial: bool = False,
    parallel: bool = False,
    real: bool = False,
) -> Any:
    """Return the kernel.

    Args:
        instruction: A name in INSTRUCTIONS.
        lanes: int32 lanes of a vector.
        vectors: Vectors of output channels in a block.
        pixels: Output pixels in a tile.
        residual: Add another activation after requantizing (the integer operator add_i8).
        grouped: There is more than one group. Without, there is no division in any address: LLVM
            would repeat it for every step of the innermost loop.
        partial: A block stores only its first `valid` channels (grouped layers).
        parallel: Share the tasks between the threads of TVM's pool.
        real: Store `float32(accumulator) * multiplier`.
    """
    dot = INSTRUCTIONS[instruction]
    group, storage, packed = dot.group, dot.storage, dot.weight
    block_lanes = vectors * lanes
    columns = 3 if residual else 2
    stored, kind = ("float32", "float32") if real else (storage, "int32")
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def kernel(
        x: T.handle(storage),
        weights: T.handle(packed),
        bias: T.handle("int32"),
        multiplier: T.handle("float32"),
        y: T.handle(stored),
        other: T.handle(storage),
        pixel_table: T.handle("int32"),
        run_table: T.handle("int32"),
        n_pixels: T.int32,
        n_chunks: T.int32,
        chunk_tiles: T.int32,
        n_blocks: T.int32,
        group_blocks: T.int32,
        x_group: T.int32,
        y_group: T.int32,
        n_runs: T.int32,
        steps: T.int32,
        valid: T.int32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
        self_factor: T.int32,
        other_factor: T.int32,
        offset: T.int32,
        sum_scale: T.float32,
        sum_lo: T.int32,
        sum_hi: T.int32,
        sum_zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), storage, data=x)
        W = T.decl_buffer((ANY,), packed, data=weights)
        B = T.decl_buffer((ANY,), "int32", data=bias)
        M = T.decl_buffer((ANY,), "float32", data=multiplier)
        Y = T.decl_buffer((ANY,), stored, data=y)
        R = T.decl_buffer((ANY,), storage, data=other)
        pixel_offset = T.decl_buffer((ANY,), "int32", data=pixel_table)
        run_offset = T.decl_buffer((ANY,), "int32", data=run_table)
        for task in loop(n_chunks * n_blocks):
            block: T.let[T.int32] = task % n_blocks
            in_group: T.let[T.int32] = block % group_blocks if grouped else block
            x_first: T.let[T.int32] = block // group_blocks * x_group if grouped else 0
            y_first: T.let[T.int32] = in_group * block_lanes + (
                block // group_blocks * y_group if grouped else 0
            )
            tile_first: T.let[T.int32] = task // n_blocks * chunk_tiles
            tiles: T.let[T.int32] = (n_pixels + (pixels - 1)) // pixels
            accumulator = T.alloc_buffer((pixels * block_lanes,), "int32")
            weight = T.alloc_buffer((block_lanes * group,), packed)
            x_pixel = T.alloc_buffer((pixels,), "int32")
            result = T.alloc_buffer((lanes,), kind)
            for i in T.serial(T.min(chunk_tiles, tiles - tile_first)):
                first: T.let[T.int32] = T.min((tile_first + i) * pixels, n_pixels - pixels)
                for p in T.unroll(pixels):
                    x_pixel[p] = pixel_offset[(first + p) * columns] + x_first
                    for v in T.unroll(vectors):
                        accumulator[T.ramp((p * vectors + v) * lanes, 1, lanes)] = B[
                            T.ramp((block * vectors + v) * lanes, 1, lanes)
                        ]
                for r in T.serial(n_runs):
                    start: T.let[T.int32] = run_offset[r]
                    for s in T.serial(steps):
                        for v in T.unroll(vectors):
                            weight[T.ramp(v * lanes * group, 1, lanes * group)] = W[
                                T.ramp(
                                    (((block * n_runs + r) * steps + s) * vectors + v)
                                    * (lanes * group),
                                    1,
                                    lanes * group,
                                )
                            ]
                        for p in T.unroll(pixels):
                            shared: T.let[T.int32] = T.reinterpret(
                                "int32",
                                X.vload([x_pixel[p] + start + s * group], f"{storage}x{group}"),
                            )
                            for v in T.unroll(vectors):
                                at: T.let[T.int32] = (p * vectors + v) * lanes
                                accumulator[T.ramp(at, 1, lanes)] = dot.multiply(
                                    lanes,
                                    accumulator[T.ramp(at, 1, lanes)],
                                    dot.operand(shared),
                                    weight[T.ramp(v * lanes * group, 1, lanes * group)],
                                )
                for p in T.unroll(pixels):
                    for v in T.unroll(vectors):
                        y_at: T.let[T.int32] = (
                            pixel_offset[(first + p) * columns + 1] + y_first + v * lanes
                        )
                        if real:
                            result[T.ramp(0, 1, lanes)] = (
                                T.Cast(
                                    f"float32x{lanes}",
                                    accumulator[T.ramp((p * vectors + v) * lanes, 1, lanes)],
                                )
                                * M[T.ramp((block * vectors + v) * lanes, 1, lanes)]
                            )
                        else:
                            result[T.ramp(0, 1, lanes)] = requantize(
                                accumulator[T.ramp((p * vectors + v) * lanes, 1, lanes)],
                                M[T.ramp((block * vectors + v) * lanes, 1, lanes)],
                                lo,
                                hi,
                                zero_point,
                                lanes,
                            )
                        if residual:
                            result[T.ramp(0, 1, lanes)] = requantize(
                                result[T.ramp(0, 1, lanes)] * T.broadcast(self_factor, lanes)
                                + T.Cast(
                                    f"int32x{lanes}",
                                    R[
                                        T.ramp(
                                            pixel_offset[(first + p) * columns + 2]
                                            + y_first
                                            + v * lanes,
                                            1,
                                            lanes,
                                        )
                                    ],
                                )
                                * T.broadcast(other_factor, lanes)
                                + T.broadcast(offset, lanes),
                                T.broadcast(sum_scale, lanes),
                                sum_lo,
                                sum_hi,
                                sum_zero_point,
                                lanes,
                            )
                        if partial:
                            for c in T.serial(
                                T.max(T.min(valid - in_group * block_lanes - v * lanes, lanes), 0)
                            ):
                                Y[y_at + c] = T.Cast(stored, result[c])
                        else:
                            Y[T.ramp(y_at, 1, lanes)] = T.Cast(
                                f"{stored}x{lanes}", result[T.ramp(0, 1, lanes)]
                            )

    return kernel
