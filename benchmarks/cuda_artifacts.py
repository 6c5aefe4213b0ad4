"""Makes what `benchmarks.cuda` measures, on any machine: `python -m benchmarks.cuda_artifacts`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import planish
from planish.backends import Reference, find_target
from planish.backends.builder import fill_plan
from planish.backends.plan import Plan
from planish.compilation import backend_graph
from planish.ir import Graph, OptionError
from planish.ir.files import make_folder

from .command import run_command
from .cuda import BUILD, DESCRIPTION, images_of
from .networks import GROUPS, prepare

NETWORK = "ResNet-50"
BATCHES = (1, 32)


@dataclass(frozen=True)
class Work:
    """What a layer has to do at least.

    Attributes:
        macs: Multiply-accumulates of the batch.
        nbytes: Of its weights, its input and its output.
    """

    macs: int
    nbytes: int


def prepare_artifacts(folder: Path, target: str) -> None:
    """Write an artifact for each batch size, and the reference's results.

    Args:
        folder: Where to.
        target: A GPU's.

    Raises:
        OptionError: The target is no GPU.
        ModelError: torchvision is not installed.
    """
    chosen = find_target(target)
    if chosen.capability is None:
        raise OptionError(f"target {target!r} is no GPU", cure="choose one of cuda-...")
    make_folder(folder)
    (network,) = [each for group in GROUPS for each in group if each.name == NETWORK]
    _say(f"making {NETWORK} as quantized ONNX")
    path = prepare(network, folder, chosen)
    described = {"target": target, "onnx": path.name, "batches": {}}
    for batch in BATCHES:
        _say(f"compiling it for {target}, batch {batch}")
        graph = backend_graph(planish.capture(path), batch)
        planish.compile(graph, target=target).save(folder / f"resnet-50-{batch}.planish")
        _say(f"computing the reference's results, batch {batch}")
        np.save(folder / f"resnet-50-{batch}.npy", Reference(graph)(images_of(batch)))
        described["batches"][str(batch)] = [asdict(each) for each in _work(graph, target)]
    (folder / DESCRIPTION).write_text(json.dumps(described))
    _say(f"wrote {folder}")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _work(graph: Graph, target: str) -> list[Work]:
    """Return what each layer of an integer graph has to do."""
    plan = Plan(find_target(target), threads=1)
    fill_plan(graph, plan)
    return [
        Work(layer.macs, layer.x.nbytes + layer.y.nbytes + plan.tensors[layer.weight].nbytes)
        for layer, _ in plan.layers
    ]


def main(
    target: Annotated[str, typer.Argument(help="A GPU's: cuda-sm90.")],
    folder: Annotated[Path, typer.Option(help="Where to.")] = BUILD,
) -> None:
    """Compile ResNet-50 for a GPU, for batches of 1 and 32."""
    prepare_artifacts(folder, target)


if __name__ == "__main__":
    run_command(main)
