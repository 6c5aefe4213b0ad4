"""Profiles: every step of the network with its layer's work, and the peak to hold it against."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import planish
from planish import passes
from planish.backends.peak import CHAINS, instruction_peak
from planish.backends.profiling import Profile, StepTime, profile
from planish.backends.targets import find_target
from planish.compilation import backend_graph
from planish.ir import TargetError

pytestmark = pytest.mark.isa("avx2")


def small() -> planish.Graph:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 24, 3, stride=2), nn.ReLU(), nn.Conv2d(24, 24, 3, groups=24)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))
    images = torch.rand(2, 3, 17, 17)
    graph = planish.capture(model.eval(), images)
    return planish.Pipeline([passes.InsertQDQ()]).run(graph, [images]).graph


def test_every_multiplication_belongs_to_a_step() -> None:
    graph = backend_graph(small())
    found = profile(graph, "x86-64-v3", rounds=2)
    work: dict[str, int] = {}
    for step in found.steps:
        work[step.layer] = work.get(step.layer, 0) + step.macs
    assert {layer: macs for layer, macs in work.items() if macs} == {
        "0": 8 * 8 * 24 * 27,
        "2": 6 * 6 * 24 * 9,
        "5": 240,
    }
    assert found.macs == sum(work.values())
    kinds = {step.kind for step in found.steps if step.macs}
    assert kinds == {"stem 3x3 stride 2", "depthwise 3x3", "linear"}
    artifact = planish.compile(graph, "x86-64-v3")
    names = [step["kernel"] for step in artifact.manifest["steps"]]
    assert [step.kernel for step in found.steps] == names


def test_rows_join_steps_of_one_layer_and_family() -> None:
    steps = [
        StepTime("a", "fill", "fill-halo", "", 0, 1.0),
        StepTime("a", "dot_1", "dot", "3x3", 3000, 1.0),
        StepTime("a", "dot_2", "dot", "3x3", 1000, 1.0),
        StepTime("b", "dot_1", "dot", "1x1", 4000, 2.0),
    ]
    found = Profile("t", "vpmaddwd", 256, 1, 4.0, 6.0, 1, steps)
    fill, first, second = found.by_layer()
    assert (fill.gmacs, found.peak_share(fill)) == (None, None)
    assert (first.calls, first.macs, first.gmacs, first.kernel) == (2, 4000, 2.0, "dot_1")
    assert found.peak_share(second) == 0.5
    kinds = [(row.family, row.kind, row.macs) for row in found.by_kind()]
    assert kinds == [("dot", "3x3", 4000), ("dot", "1x1", 4000), ("fill-halo", "", 0)]
    assert found.to_json()["steps"][1]["peak_share"] == 0.75


def test_the_peak_is_that_of_the_instruction() -> None:
    """A number of the right order: 16 products, one or two times in each of 1 to 6 GHz cycles."""
    target = find_target("x86-64-v3")
    assert target.instruction in CHAINS
    peak = instruction_peak(target)
    assert peak is not None
    assert np.isfinite(peak)
    assert 5 < peak < 1000


@pytest.mark.parametrize("target", ["armv8", "cuda-sm80"])
def test_what_this_processor_does_not_run(builder: Any, target: str) -> None:
    b = builder(0)
    graph = b.finish(b.conv(b.input(torch.uint8, (1, 8, 4, 4)), (8, 8, 1, 1)))
    with pytest.raises(TargetError, match=rf"'{target}' is (for aarch64|a GPU)"):
        profile(graph, target)
