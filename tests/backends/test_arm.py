"""ARM code, executed by an emulator: operators and networks give the reference's integers.

Each target runs on the oldest processor that has its instructions, so that none of another one can
slip in: it would end the process.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from planish.backends import Reference, build
from planish.ir import Graph
from tests.backends import test_attention, test_images, test_operators

pytestmark = pytest.mark.arm
Processors = Callable[[str], Any]

# qemu's processors: the Cortex-A72 has neither dot products nor matrices, the A76 no matrices.
PROCESSORS = {"armv8": "cortex-a72", "armv8-dotprod": "cortex-a76", "armv8-i8mm": "max"}
SUITES = {
    f"{module.__name__.rpartition('_')[2]}-{name}": (module, name)
    for module in (test_operators, test_attention, test_images)
    for name in module.CASES
}


def sample(graph: Graph, source: Any) -> list[Any]:
    """Random inputs, quantized ones with extremes; indices are inside the smallest tables."""
    made = {
        torch.float32: lambda shape: 3 * torch.randn(shape, generator=source.random),
        torch.int32: lambda shape: source.integers(0, 3, shape).to(torch.int32),
        torch.int64: lambda shape: source.integers(0, 3, shape),
    }
    return [
        made[spec.dtype](spec.shape).numpy()
        if spec.dtype in made
        else source.values(spec.dtype, spec.shape).numpy()
        for spec in graph.inputs
    ]


def assert_same(graph: Graph, target: str, emulated: Processors, samples: list[Any]) -> None:
    """Compile, run under emulation, and compare with the reference."""
    results = emulated(PROCESSORS[target]).run(build(graph, target), samples)
    reference = Reference(graph)
    for given, found in zip(samples, results, strict=True):
        for number, (want, have) in enumerate(zip(reference(*given), found, strict=True)):
            assert have.dtype == want.dtype
            assert int((want != have).sum()) == 0, f"output {number} of {len(found)}"


@pytest.mark.parametrize("target", PROCESSORS)
@pytest.mark.parametrize("case", SUITES)
def test_operators_equal_the_reference(
    emulated: Processors, builder: Any, case: str, target: str
) -> None:
    module, name = SUITES[case]
    graph = module.make_graph(builder, name, seed=1)
    assert_same(graph, target, emulated, [sample(graph, builder(1001)) for _ in range(2)])


@pytest.mark.sweep
@pytest.mark.parametrize("target", PROCESSORS)
@pytest.mark.parametrize("seed", range(2, 8))
@pytest.mark.parametrize("case", SUITES)
def test_operator_sweep(
    emulated: Processors, builder: Any, case: str, seed: int, target: str
) -> None:
    module, name = SUITES[case]
    graph = module.make_graph(builder, name, seed)
    assert_same(graph, target, emulated, [sample(graph, builder(seed + 1000))])
