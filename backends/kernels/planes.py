"""Quantize an image: planes of float32, one a channel, become bytes with the channels side by side.

For images of at most 4 channels, whose pixels lie without gaps: vectors are read from each plane,
quantized as everywhere (division, clamp, rounding), narrowed, and their lanes stored in turns.
"""

from __future__ import annotations

from typing import Any

from .elementwise import quantized
from .statements import T, kernel, let, load, loop, store

SCALARS = (("scale", "float32"), ("lo", "int32"), ("hi", "int32"), ("zero_point", "int32"))


def build(
    lanes: int,
    pixels: tuple[int, int, int],
    channels: int,
    x_steps: tuple[int, int, int],
    y_steps: tuple[int, int],
    parallel: bool = False,
) -> Any:
    """Return the kernel.

    Args:
        lanes: Pixels of a vector, no more than a row has.
        pixels: (images, height, width).
        channels: 1 to 4; y's pixels are that many bytes.
        x_steps: float32 elements from one image, channel and row to the next in x.
        y_steps: Bytes from one image and row to the next in y.
        parallel: Share the rows between the threads of TVM's pool.
    """
    images, height, width = pixels

    in_turns = [c * lanes + i for i in range(lanes) for c in range(channels)]

    def body(x: Any, y: Any, scale: Any, lo: Any, hi: Any, zero_point: Any) -> None:
        with loop(images * height, parallel=parallel) as task:
            image, row = let(task // height), let(task % height)
            x_row = let(image * x_steps[0] + row * x_steps[2])
            y_row = let(image * y_steps[0] + row * y_steps[1])
            with loop(-(-width // lanes)) as i:
                first = let(T.min(i * lanes, width - lanes))
                planes = [
                    let(
                        T.Cast(
                            f"uint8x{lanes}",
                            quantized(
                                load(x, x_row + c * x_steps[1] + first, lanes),
                                *(scale, lo, hi, zero_point),
                                lanes,
                            ),
                        )
                    )
                    for c in range(channels)
                ]
                together = planes[0] if channels == 1 else T.Shuffle(planes, in_turns)
                store(y, y_row + first * channels, together, lanes * channels)

    return kernel([("x", "float32"), ("y", "uint8")], SCALARS, body)
