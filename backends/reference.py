"""The reference backend: torch runs the graph, called as an artifact is.

It gives the integer operators their meaning; every compiled artifact equals it bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from planish.ir import Graph
from planish.ir.coverage import int8_coverage
from planish.ir.errors import DataError


class Reference:
    """Runs a graph of any level with NumPy arrays in and out.

    Attributes:
        graph: What it runs.
        coverage: As an artifact's: MACs in int8, and the nodes in float.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.coverage = int8_coverage(graph).to_json()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph.

        Args:
            args: NumPy arrays or anything with DLPack, in the order of the graph's inputs.
            kwargs: The same by input name.

        Returns:
            NumPy arrays, nested as the model's outputs are.

        Raises:
            DataError: A wrong count, name, shape or dtype.
        """
        with torch.no_grad():
            result = self.graph(
                *[_tensor(value) for value in args],
                **{name: _tensor(value) for name, value in kwargs.items()},
            )
        return _arrays(result)


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    try:
        array = np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
        return torch.from_numpy(np.array(array, order="C"))
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"an input can't be read as an array: {error}") from error


def _arrays(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return result.numpy()
    if isinstance(result, dict):
        return {key: _arrays(value) for key, value in result.items()}
    return type(result)(_arrays(value) for value in result)
