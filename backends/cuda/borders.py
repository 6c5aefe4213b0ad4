"""Borders of images on a GPU: each thread writes one word of them."""

from __future__ import annotations

from typing import Any

from ..kernels.statements import T, kernel, let, loop

_SIZES = ("images", "image", "head", "gaps", "first_gap", "row", "gap", "tail_at", "tail")


def build() -> Any:
    """Return the kernel; it takes what `kernels.movement.build_fill_halo` takes, in words."""

    def body(y: Any, value: Any, **sizes: Any) -> None:
        between = sizes["gaps"] * sizes["gap"]
        words = sizes["head"] + between + sizes["tail"]
        with loop(sizes["images"] * words) as task:
            i = let(T.truncmod(task, words))
            place = T.truncdiv(task, words) * sizes["image"]
            behind = i - sizes["head"]
            gap = T.max(sizes["gap"], 1)  # without gaps nothing is between
            inside = sizes["first_gap"] + T.truncdiv(behind, gap) * sizes["row"]
            inside += T.truncmod(behind, gap)
            last = sizes["tail_at"] + behind - between
            at = T.Select(behind < between, inside, last)
            T.buffer_store(y, value, [place + T.Select(i < sizes["head"], i, at)])

    return kernel([("y", "int32")], [(name, "int32") for name in ("value", *_SIZES)], body)
