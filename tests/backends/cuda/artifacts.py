"""A small artifact for GPUs, and a stand-in for NVIDIA's driver that runs it in the emulator."""

import ctypes
import ctypes.util
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Artifact, build
from planish.backends.cuda import driver
from planish.backends.cuda.emulated import EmulatedNetwork
from planish.backends.cuda.emulator import emulate
from planish.ir import (
    Graph,
)

planish = torch.ops.planish


@pytest.fixture(scope="module")
def graph(builder: Any) -> Graph:
    b = builder(5)
    x = b.input(torch.uint8, (1, 16, 9, 9))
    y = b.conv(x, (24, 16, 3, 3), padding=(1, 1, 1, 1), x_zero=7)
    window = ([2, 2], [2, 2], [0] * 4, [1, 1], False)
    return b.finish(b.call(planish.max_pool2d_i8.default, y, *window))


@pytest.fixture(scope="module")
def artifact(graph: Graph) -> Artifact:
    pytest.importorskip("nvidia.cuda_nvrtc", reason="nvidia-cuda-nvrtc-cu12 is not installed")
    return build(graph, ["x86-64-v3", "cuda-sm80", "cuda-sm61"])


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 16, 9, 9)).astype(np.uint8)


@pytest.fixture(scope="module")
def stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NVIDIA's driver's library as `driver_stub.c` has it."""
    made = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = Path(__file__).parent / "driver_stub.c"
    command = ["gcc", "-O1", "-shared", "-fPIC", str(source), "-o", str(made)]
    subprocess.run(command, check=True)
    return made


@pytest.fixture
def stub(graph: Graph, stub_library: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in for the driver, which knows the kernels of the graph."""
    stub = ctypes.CDLL(str(stub_library))
    program = EmulatedNetwork(graph, "cuda-sm80").program
    kernels = emulate(program.text, "sm_80")
    stub.stub_begin(ctypes.cast(kernels._launch, ctypes.c_void_p))
    for launch in dict.fromkeys([*program.setup, *program.launches]):
        number = kernels._numbers[launch.kernel]
        stub.stub_kernel(launch.kernel.encode(), number, len(launch.arguments))
    monkeypatch.setattr(driver, "_open", lambda: stub)
    for cached in (driver.compute_capability, driver._driver):
        cached.cache_clear()
    yield stub
    ctypes.c_int.in_dll(stub, "stub_failure").value = 0
    ctypes.c_int.in_dll(stub, "stub_full").value = 0
    for cached in (driver.compute_capability, driver._driver):
        cached.cache_clear()


def count(stub: ctypes.CDLL, name: str) -> int:
    return ctypes.c_int.in_dll(stub, f"stub_{name}").value
