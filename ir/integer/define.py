"""Registers an operator with torch: schema, meaning, and shape rule in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("planish", "DEF")


def define(
    schema: str, meaning: Callable[..., torch.Tensor], shape: Callable[..., torch.Tensor]
) -> None:
    """Define `planish::<schema>`.

    Args:
        schema: Name, arguments and result in torch's schema language.
        meaning: The reference: takes and returns real tensors.
        shape: The same signature, on tensors without data; gives shape and dtype.
    """
    name = schema.split("(", maxsplit=1)[0]
    _library.define(schema)
    _library.impl(name, meaning, "CompositeExplicitAutograd")
    torch.library.register_fake(f"planish::{name}", shape, lib=_library)


def as_dtype(_: torch.Tensor, dtype: torch.dtype, shape: Any) -> torch.Tensor:
    """Return an empty tensor like the first one, of another dtype and shape."""
    return _.new_empty(shape, dtype=dtype)
