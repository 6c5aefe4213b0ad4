"""What the kernels for GPUs take: `python -m benchmarks.cuda_kernels`, on any machine.

Compiles a few networks for every GPU target and reads what NVIDIA's assembler reports: registers,
shared memory, spilled bytes. Prints a table, and with --write-docs puts it into docs/cuda.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

import planish
from planish import passes
from planish.backends.targets import BEST_FIRST
from planish.ir import Graph, ModelError
from planish.ir.files import write_beside

from .command import run_command
from .networks import separable
from .page import put_section
from .vision import installed, torchvision_models

PAGE = Path(__file__).parent.parent / "docs" / "cuda.md"
TARGETS = tuple(sorted(name for name in BEST_FIRST if name.startswith("cuda-")))


def block() -> nn.Module:
    """One encoder layer of a transformer."""
    return nn.TransformerEncoderLayer(192, 3, 768, batch_first=True, norm_first=True)


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        if not installed():
            raise ModelError("torchvision is not installed", where=name)
        return getattr(torchvision_models(), name)()

    return make


# Name, shape of the example, module.
NETWORKS: tuple[tuple[str, tuple[int, ...], Callable[[], nn.Module]], ...] = (
    ("ResNet-50", (1, 3, 224, 224), _torchvision("resnet50")),
    ("MobileNet v1 x 0.25", (1, 3, 128, 128), separable),
    ("transformer block", (1, 64, 192), block),
)


def quantized(shape: tuple[int, ...], module: nn.Module) -> Graph:
    """Return a network with random weights as a quantized graph."""
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    graph = planish.capture(module.eval(), example)
    steps = planish.Pipeline([passes.FoldBatchNorm(), passes.InsertQDQ()])
    return steps.run(graph, [example]).graph


def measure() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Compile every network for every target; return the kernels' records by family and target."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for _, shape, make in NETWORKS:
        torch.manual_seed(0)
        graph = quantized(shape, make())
        for target in TARGETS:
            kernels = planish.compile(graph, target=target).manifest["kernels"]
            for symbol, record in kernels.items():
                family = symbol.rpartition("_")[0].replace("_", "-")
                found.setdefault(family, {}).setdefault(target, []).append(record)
    return found


def table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Return the table as Markdown: a line a family and target."""
    lines = [
        "| kernel family | target | kernels | registers | shared memory, bytes | spilled, bytes |",
        "|---|---|---|---|---|---|",
    ]
    for family in sorted(found):
        for target in TARGETS:
            records = found[family].get(target, [])
            if not records:
                continue
            columns = [
                _span([r[key] for r in records]) for key in ("registers", "shared", "spilled")
            ]
            lines.append(f"| {family} | {target} | {len(records)} | {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def main(
    write_docs: Annotated[bool, typer.Option(help="Put the table into docs/cuda.md.")] = False,
) -> None:
    """Print what the kernels for GPUs take."""
    made = table(measure())
    typer.echo(made, nl=False)
    if write_docs:
        write_beside(PAGE, put_section(PAGE.read_text(), "kernels", made).encode())


if __name__ == "__main__":
    run_command(main)
