"""Where and how a training runs: seeds, device, memory layout, mode; and what it may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from planish.ir.graph import Graph
from planish.ir.level import Level
from planish.ir.ops import arguments, follows_mode, row, set_training

from ..context import Context


def trained_tensors(graph: Graph) -> dict[str, torch.Tensor]:
    """Return what training may change: every tensor that isn't only a frozen teacher's."""
    names = {str(n.target) for n in graph.nodes if n.op == "get_attr" and not n.meta.get("frozen")}
    return {name: value for name, value in graph.attributes.items() if name in names}


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch's generators, and give them back as they were."""
    cuda = torch.device(device).type == "cuda"
    devices = [torch.device(device).index or 0] if cuda else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        yield


@contextmanager
def placed(graph: Graph, device: str) -> Iterator[None]:
    """Lend the graph's tensors to a device, in the layout that trains fastest; then eval mode."""
    chosen = layout(graph)
    graph.module.to(device).to(memory_format=chosen)  # pyright: ignore[reportCallIssue]
    try:
        yield
    finally:
        plain = torch.contiguous_format
        graph.module.zero_grad(set_to_none=True)
        graph.module.to("cpu").to(memory_format=plain)  # pyright: ignore[reportCallIssue]
        graph.eval()


def copy_in(graph: Graph, tensors: dict[str, torch.Tensor]) -> None:
    """Overwrite the values of a graph's tensors in place."""
    with torch.no_grad():
        for name, value in tensors.items():
            graph.attribute(name).copy_(value)


def set_training_mode(graph: Graph) -> None:
    """Let batch norm and dropout train; on the quantized level batch norm keeps its statistics.

    The scales were chosen with the running statistics, and what is deployed uses them.
    """
    graph.train()
    if graph.level != Level.QUANTIZED:
        return
    for node in graph.calls:
        if follows_mode(node) and row(node).name == "batch_norm":
            set_training(node, False)
    graph.module.recompile()


def layout(graph: Graph) -> torch.memory_format:
    """Return channels-last where possible: convolutions train a third faster in it on CPUs.

    `view` needs the strides of the plain layout, so one that reads four axes or more forbids it.
    """
    views = [node for node in graph.calls if node.target is torch.ops.aten.view.default]
    plain = any(len(graph.shape(arguments(node)["self"])) >= 4 for node in views)
    return torch.contiguous_format if plain else torch.channels_last


def generator_states(context: Context) -> dict[str, torch.Tensor]:
    """Return the states of torch's generators, and of the data's own if it has one."""
    states = {"cpu": torch.get_rng_state()}
    if torch.device(context.device).type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(context.device)
    generator = getattr(context.data, "generator", None)
    if isinstance(generator, torch.Generator):
        states["data"] = generator.get_state()
    return states


def restore_generators(context: Context, states: dict[str, torch.Tensor]) -> None:
    """Give the generators the states that `generator_states` returned."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.device(context.device).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], context.device)
    generator = getattr(context.data, "generator", None)
    if "data" in states and isinstance(generator, torch.Generator):
        generator.set_state(states["data"])
