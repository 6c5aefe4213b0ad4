"""Depthwise convolution: each channel has its own small filter.

Channels lie side by side, so a vector holds `channels` neighbours of one pixel. Two taps at a time
are interleaved channel by channel and multiplied with interleaved weights by `vpmaddwd`, which
leaves int32 sums of the pair: exact, as a product is at most 255 * 128. Interleaving works inside
128-bit halves, so the two accumulators hold the channels in an order that the packed bias and
multipliers share, and that `packusdw` undoes when the results are narrowed.

A block is `channels` channels; the last block of a layer starts early instead of being short.
"""

# TVMScript spells the type of a pointer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

from tvm.script import tirx as T

from .instructions import ANY, pair_dot, requantize


def _interleaved(channels: int, half: int) -> list[int]:
    """Return what `vpunpcklwd` (half 0) or `vpunpckhwd` (half 1) takes of two vectors."""
    return [
        tap * channels + part * 8 + half * 4 + pair
        for part in range(channels // 8)
        for pair in range(4)
        for tap in (0, 1)
    ]


def build(storage: str, channels: int, pixels: int, parallel: bool = False) -> Any:
    """Return the kernel for blocks of 8 or 16 channels and tiles of `pixels` output pixels."""
    half = channels // 2
    low, high = _interleaved(channels, 0), _interleaved(channels, 1)
    narrow = "llvm.x86.avx2.packusdw" if channels == 16 else "llvm.x86.sse41.packusdw"
    wide, vector = f"int16x{channels}", f"{storage}x{channels}"
    loop = T.parallel if parallel else T.serial

    @T.prim_func(private=True)
    def kernel(
        x: T.handle(storage),
        weights: T.handle("int16"),
        bias: T.handle("int32"),
        multiplier: T.handle("float32"),
        y: T.handle(storage),
        pixel_table: T.handle("int32"),
        tap_table: T.handle("int32"),
        channel_table: T.handle("int32"),
        n_pixels: T.int32,
        n_chunks: T.int32,
        chunk_tiles: T.int32,
        n_blocks: T.int32,
        n_pairs: T.int32,
        lo: T.int32,
        hi: T.int32,
        zero_point: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((ANY,), storage, data=x)
        W = T.decl_buffer((ANY,), "int16", data=weights)
        B = T.decl_buffer((ANY,), "int32", data=bias)
        M = T.decl_buffer((ANY,), "float32", data=multiplier)
        Y = T.decl_buffer((ANY,), storage, data=y)
        pixel_offset = T.decl_buffer((ANY,), "int32", data=pixel_table)
        tap_offset = T.decl_buffer((ANY,), "int32", data=tap_table)
        channel = T.decl_buffer((ANY,), "int32", data=channel_table)
        for task in loop(n_chunks * n_blocks):
            block: T.let[T.int32] = task % n_blocks
            tile_first: T.let[T.int32] = task // n_blocks * chunk_tiles
            tiles: T.let[T.int32] = (n_pixels + (pixels - 1)) // pixels
            accumulator = T.alloc_buffer((pixels * channels,), "int32")
            weight = T.alloc_buffer((2 * channels,), "int16")
            x_pixel = T.alloc_buffer((pixels,), "int32")
            first_tap = T.alloc_buffer((channels,), "int16")
            second_tap = T.alloc_buffer((channels,), "int16")
            for i in T.serial(T.min(chunk_tiles, tiles - tile_first)):
                first: T.let[T.int32] = T.min((tile_first + i) * pixels, n_pixels - pixels)
                for p in T.unroll(pixels):
                    x_pixel[p] = pixel_offset[(first + p) * 2] + channel[block]
                    for h in T.unroll(2):
                        accumulator[T.ramp((p * 2 + h) * half, 1, half)] = B[
                            T.ramp((block * 2 + h) * half, 1, half)
                        ]
                for t in T.serial(n_pairs):
                    for h in T.unroll(2):
                        weight[T.ramp(h * channels, 1, channels)] = W[
                            T.ramp(((block * n_pairs + t) * 2 + h) * channels, 1, channels)
                        ]
                    for p in T.unroll(pixels):
                        first_tap[T.ramp(0, 1, channels)] = T.Cast(
                            wide, X[T.ramp(x_pixel[p] + tap_offset[2 * t], 1, channels)]
                        )
                        second_tap[T.ramp(0, 1, channels)] = T.Cast(
                            wide, X[T.ramp(x_pixel[p] + tap_offset[2 * t + 1], 1, channels)]
                        )
                        accumulator[T.ramp(p * channels, 1, half)] = accumulator[
                            T.ramp(p * channels, 1, half)
                        ] + pair_dot(
                            half,
                            T.Shuffle(
                                [
                                    first_tap[T.ramp(0, 1, channels)],
                                    second_tap[T.ramp(0, 1, channels)],
                                ],
                                low,
                            ),
                            weight[T.ramp(0, 1, channels)],
                        )
                        accumulator[T.ramp(p * channels + half, 1, half)] = accumulator[
                            T.ramp(p * channels + half, 1, half)
                        ] + pair_dot(
                            half,
                            T.Shuffle(
                                [
                                    first_tap[T.ramp(0, 1, channels)],
                                    second_tap[T.ramp(0, 1, channels)],
                                ],
                                high,
                            ),
                            weight[T.ramp(channels, 1, channels)],
                        )
                for p in T.unroll(pixels):
                    Y[T.ramp(pixel_offset[(first + p) * 2 + 1] + channel[block], 1, channels)] = (
                        T.Cast(
                            vector,
                            T.call_llvm_pure_intrin(
                                wide,
                                narrow,
                                requantize(
                                    accumulator[T.ramp(p * channels, 1, half)],
                                    M[T.ramp(block * channels, 1, half)],
                                    lo,
                                    hi,
                                    zero_point,
                                    half,
                                ),
                                requantize(
                                    accumulator[T.ramp(p * channels + half, 1, half)],
                                    M[T.ramp(block * channels + half, 1, half)],
                                    lo,
                                    hi,
                                    zero_point,
                                    half,
                                ),
                            ),
                        )
                    )

    return kernel
