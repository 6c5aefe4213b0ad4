"""Compiles networks and operators for a GPU, and stores what the reference makes of inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from planish.backends import Reference, build, find_target
from planish.ir import Graph, OptionError
from planish.ir.calling import flatten_structure
from planish.ir.files import make_folder
from tests.backends import test_attention, test_images, test_operators
from tests.backends.conftest import GraphBuilder
from tests.backends.cuda.networks import NETWORKS, integer_graph
from tests.backends.test_arm import sample
from tests.backends.test_float_operators import GROUPS, Samples

from .running import say

SUITES = {"operators": test_operators, "attention": test_attention, "images": test_images}
BATCH = 3
SAMPLES = 4


def graphs() -> Iterator[tuple[str, Graph]]:
    """Yield every case by name: the suites of operators, and whole networks."""
    for suite, module in SUITES.items():
        for name in module.CASES:
            yield f"{suite}-{_dashed(name)}", module.make_graph(GraphBuilder, name, seed=1)
    for name in NETWORKS:
        yield f"network-{_dashed(name)}", integer_graph(name, BATCH)


def float_graphs() -> Iterator[tuple[str, Graph, list[Any]]]:
    """Yield groups of float operators by name, with inputs that they are defined for."""
    for name, group in GROUPS.items():
        samples = Samples(GraphBuilder)
        made = [make_node(samples) for found in group.values() for make_node in found]
        graph = samples.builder.finish(*made)
        yield f"float-{_dashed(name)}", graph, [value.numpy() for value in samples.values]


def _dashed(name: str) -> str:
    return name.replace(" ", "-").replace("_", "-")


def make(folder: Path, target: str = "cuda-sm90") -> None:
    """Write all cases into a folder, an artifact and its samples each.

    Raises:
        OptionError: The target is no GPU, or the folder can't be made.
        TargetError: NVIDIA's compiler is not installed.
    """
    if find_target(target).capability is None:
        raise OptionError(f"target {target!r} is no GPU", cure="choose one of cuda-...")
    make_folder(folder)
    done: set[str] = set()
    for name, graph, *given in chain(graphs(), float_graphs()):
        assert name not in done, f"two cases are called {name}"
        say(name)
        write(folder / f"{name}.planish", graph, target, given or None)
        done.add(name)


def write(path: Path, graph: Graph, target: str, inputs: Sequence[Any] | None = None) -> None:
    """Write one case: an artifact, and inputs with the reference's outputs.

    Args:
        path: The artifact's; the arrays lie beside it.
        graph: What is compiled, its batch fixed.
        target: A GPU's.
        inputs: The samples, of a graph in float, whose results shall be close; by default random
            quantized ones, whose results shall be equal.
    """
    build(graph, target).save(path)
    reference = Reference(graph)
    given_by = inputs or [sample(graph, GraphBuilder(1000 + i)) for i in range(SAMPLES)]
    stored: dict[str, Any] = {"close": inputs is not None}
    for number, given in enumerate(given_by):
        flat: list[Any] = []
        flatten_structure(reference(*given), flat)
        stored.update({f"input.{number}.{i}": array for i, array in enumerate(given)})
        stored.update({f"output.{number}.{i}": array for i, array in enumerate(flat)})
    np.savez(path.with_suffix(".npz"), target=target, samples=len(given_by), **stored)
