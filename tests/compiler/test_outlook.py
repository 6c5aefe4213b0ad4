"""What inspect foretells is what compiling gives."""

from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import planish
from planish import passes
from planish.cli.app import app
from planish.ir.coverage import int8_coverage
from planish.ir.graph import Graph
from planish.ir.origin import Origin
from planish.outlook import integer_outlook


class Mixed(nn.Module):
    """A convolution, a squeeze-and-excitation product, and a group norm, which stays in float."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.head(self.norm(x).mean((2, 3)))


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return planish.capture(Mixed(), torch.zeros(1, 3, 8, 8))


def lowered(graph: Graph) -> Graph:
    steps = [passes.FoldBatchNorm(), passes.InsertQDQ(), passes.LowerToInteger()]
    return planish.Pipeline(steps).run(graph, [torch.rand(4, 3, 8, 8)]).graph


def test_the_outlook_is_what_lowering_gives(graph: Graph) -> None:
    before = graph.fingerprint()
    assert integer_outlook(graph) == int8_coverage(lowered(graph))
    assert graph.fingerprint() == before


def test_what_stays_in_float_is_named_with_its_reason(graph: Graph) -> None:
    (fallback,) = integer_outlook(graph, "x86-64-v3").fallbacks
    assert fallback.operator == "group_norm"
    assert fallback.node == "norm"
    assert "no integer form" in fallback.reason


def test_an_integer_graph_is_counted_as_it_is(graph: Graph) -> None:
    integer = lowered(graph)
    assert integer_outlook(integer) == int8_coverage(integer)
    assert integer_outlook(integer).share == 1.0


def test_names_are_not_markup(graph: Graph, tmp_path: Path) -> None:
    odd = graph.copy()
    for node in odd.calls:
        node.meta["origin"] = Origin(f"[/red]{node.name}")
    path = tmp_path / "[bold]odd.graph"
    odd.save(path)
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 0
    assert "[/red]" in result.stdout
    assert "[bold]odd.graph" in result.stdout.replace("\n", "")
