"""ARM's inner loops, read off the assembly: `python -m benchmarks.arm_loops` (docs/arm.md).

No ARM processor is needed: layers are compiled, and the loop with most multiplications is looked
at. The cycles are reckoned, not measured. Prints a table, and with --write-docs puts it into
docs/arm.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

import planish
from planish import passes
from planish.backends.assembly import Instruction, Loop, busiest_loop
from planish.backends.machine_code import machine_code
from planish.compilation import backend_graph
from planish.ir import Graph
from planish.ir.files import write_beside

from .command import run_command
from .page import put_section

PAGE = Path(__file__).resolve().parent.parent / "docs" / "arm.md"
TARGETS = ("armv8", "armv8-dotprod", "armv8-i8mm")
# Multiply-accumulates of one instruction; "sadalp" adds those of bytes up.
MACS = {
    **dict.fromkeys(("smlal", "smlal2", "smull", "smull2", "mla", "mul"), 4),
    "sadalp": 0,
    **dict.fromkeys(("sdot", "udot", "usdot", "sudot"), 16),
    **dict.fromkeys(("smmla", "ummla", "usmmla"), 32),
}
# What starts in a cycle: Cortex-A76 Software Optimization Guide, sections 3.15 to 3.19. A processor
# with matrix products (Cortex-A710, Neoverse N2) starts as many of them as of dot products.
_DECODED, _LOADS, _VECTORS = 4, 2, 2


class _Attention(nn.Module):
    """The product of queries and keys."""

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[1, heads, tokens, width] each."""
        return queries @ keys.transpose(-2, -1)


def _convolution(
    channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    return nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups)


# A layer's name, the module, and the shapes of its inputs.
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "3x3, 64 to 64, 28x28": (lambda: _convolution(64, 64, 3), ((1, 64, 28, 28),)),
    "3x3 stride 2, 128 to 256, 28x28": (lambda: _convolution(128, 256, 3, 2), ((1, 128, 28, 28),)),
    "1x1, 256 to 64, 14x14": (lambda: _convolution(256, 64, 1), ((1, 256, 14, 14),)),
    "7x7 stride 2, 3 to 64, 112x112": (lambda: _convolution(3, 64, 7, 2), ((1, 3, 112, 112),)),
    "3x3 grouped by 8, 64 to 64, 14x14": (
        lambda: _convolution(64, 64, 3, groups=8),
        ((1, 64, 14, 14),),
    ),
    "depthwise 3x3, 96, 28x28": (lambda: _convolution(96, 96, 3, groups=96), ((1, 96, 28, 28),)),
    "depthwise 5x5 stride 2, 96, 28x28": (
        lambda: _convolution(96, 96, 5, 2, groups=96),
        ((1, 96, 28, 28),),
    ),
    "linear, 512 to 1000": (lambda: nn.Linear(512, 1000), ((1, 512),)),
    "products of 64 x 64 tokens": (_Attention, ((1, 3, 64, 64), (1, 3, 64, 64))),
}


@dataclass(frozen=True)
class Reckoned:
    """A loop, and what it would take.

    Attributes:
        loop: The innermost loop with most multiplications.
        macs: Multiply-accumulates of one turn.
        cycles: Of one turn, on a core like the Cortex-A76.
    """

    loop: Loop
    macs: int
    cycles: float

    @property
    def share(self) -> float:
        """The multiply-accumulates' part of the loop's vector instructions."""
        return self.loop.share(*MACS)


def reckon(loop: Loop) -> Reckoned:
    """Count a loop's work and the cycles that it takes where nothing waits."""
    instructions = loop.instructions
    loads = sum(_loaded(each) for each in instructions)
    vectors = [each for each in instructions if each.registers and not _loaded(each)]
    long_products = [each for each in vectors if MACS.get(each.mnemonic) == 4]  # one pipe has them
    cycles = max(
        len(instructions) / _DECODED,
        loads / _LOADS,
        len(vectors) / _VECTORS,
        float(len(long_products)),
    )
    return Reckoned(loop, sum(map(_multiplied, instructions)), cycles)


def _multiplied(instruction: Instruction) -> int:
    """Return an instruction's multiply-accumulates: products of bytes are twice as many."""
    words = any(operand.endswith(".8h") for operand in instruction.operands[:1])
    return MACS.get(instruction.mnemonic, 0) * (2 if words else 1)


def _loaded(instruction: Instruction) -> int:
    """Return how many registers an instruction loads or stores."""
    if instruction.mnemonic.startswith(("ldp", "stp")):
        return 2
    return int(instruction.mnemonic.startswith(("ld", "st")))


def layer_graph(name: str) -> Graph:
    """Return one of LAYERS as an integer graph."""
    make, shapes = LAYERS[name]
    torch.manual_seed(0)
    inputs = tuple(torch.rand(shape) for shape in shapes)
    graph = planish.capture(make().eval(), inputs)
    quantized = planish.Pipeline([passes.InsertQDQ()]).run(graph, [inputs]).graph
    return backend_graph(quantized)


def reckoned_layers(names: list[str] | None = None) -> Iterator[tuple[str, str, Reckoned]]:
    """Yield layer, target and loop of each of LAYERS, or of some, on each target."""
    for name in names or LAYERS:
        typer.echo(f"compiling {name}", err=True)
        graph = layer_graph(name)
        for target in TARGETS:
            yield name, target, reckon(busiest_loop(machine_code(graph, target), *MACS))


def table() -> str:
    """Return the page's table."""
    lines = [
        "| layer | target | multiplications | of the vector instructions | spills | MACs a turn | "
        "cycles a turn | cycles a MAC |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, target, found in reckoned_layers():
        counts = {word: found.loop.count(word) for word in MACS if found.loop.count(word)}
        words = ", ".join(f"{count} {word}" for word, count in counts.items())
        lines.append(
            f"| {name} | {target} | {words} | {found.share:.0%} | {len(found.loop.spills)} | "
            f"{found.macs} | {found.cycles:.0f} | {found.cycles / found.macs:.4f} |"
        )
    return "\n".join(lines) + "\n"


def main(
    write_docs: Annotated[bool, typer.Option(help="Put the table into docs/arm.md.")] = False,
) -> None:
    """Print what the inner loops of common layers hold on each ARM target."""
    made = table()
    typer.echo(made, nl=False)
    if write_docs:
        write_beside(PAGE, put_section(PAGE.read_text(), "loops", made).encode())


if __name__ == "__main__":
    run_command(main)
