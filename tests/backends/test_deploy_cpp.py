"""The C++ example on this machine: the same values as `planish.load`, and what it refuses."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Artifact, build
from planish.backends.deployment import unpack
from tests.deployed import build_example, deploy

pytestmark = [
    pytest.mark.isa("avx2"),
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("make") or not shutil.which("g++"), reason="needs make, g++"
    ),
]
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("program") / "deploy"
    return build_example(out, f"PYTHON={sys.executable}")


def network(builder: Any, threads: int = 1) -> Artifact:
    """Two inputs of unlike dtypes, two outputs; with threads, large enough to use them."""
    b = builder(4)
    size = 48 if threads > 1 else 9
    image = b.input(torch.uint8, (1, 32, size, size))
    other = b.input(torch.float32, (1, 7))
    first = b.conv(image, (64, 32, 3, 3), padding=(1, 1, 1, 1), x_zero=7)
    quantized = b.call(torch.ops.planish.quantize.default, other, 0.1, 3, 0, 255, torch.uint8)
    return build(b.finish(b.conv(first, (24, 64, 1, 1)), quantized), "x86-64-v3", threads=threads)


def inputs(artifact: Artifact, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [(random.random(info.shape) * 200).astype(info.dtype) for info in artifact.inputs]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_values(program: Path, builder: Any, tmp_path: Path, threads: int) -> None:
    artifact = network(builder, threads)
    artifact.save(tmp_path / "model.planish")
    unpack(tmp_path / "model.planish", tmp_path)
    for seed in range(3):
        values = inputs(artifact, seed)
        found = deploy([program], tmp_path, artifact, values)
        for value, expected in zip(found, artifact(*values), strict=True):
            assert np.array_equal(value, expected)


@pytest.fixture
def call(program: Path, builder: Any, tmp_path: Path) -> Call:
    """`call("in0", ...)` runs the program in a folder with a good network and good inputs."""
    artifact = network(builder)
    artifact.save(tmp_path / "model.planish")
    unpack(tmp_path / "model.planish", tmp_path / "net")
    for i, value in enumerate(inputs(artifact)):
        value.tofile(tmp_path / f"in{i}")

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *words], cwd=tmp_path, capture_output=True, text=True)

    assert run("net", "in0", "in1", "out0", "out1").returncode == 0
    return run


FILES = ("in0", "in1", "out0", "out1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "usage: deploy FOLDER INPUT... OUTPUT..."),
        (("none", *FILES), "can't read none/interface.txt"),
        (("net", "in0"), "1 files given, the network has 2 inputs and 2 outputs"),
        (("net", "in1", "in0", "out0", "out1"), "in1 has 28 bytes, expected 2592"),
        (("net", "in0", "none", "out0", "out1"), "can't read none"),
        (("net", "in0", "in1", "no/folder", "out1"), "can't write no/folder"),
    ],
)
def test_mistakes(call: Call, words: tuple[str, ...], message: str) -> None:
    done = call(*words)
    assert done.returncode in (1, 2)
    assert done.stderr.splitlines() == [message if not words else f"deploy: {message}"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("parameters.bin", b"short", "net/parameters.bin has 5 bytes, expected"),
        ("interface.txt", b"entry planish_main\ninput float32 2 1\n", "can't read this line of"),
        ("interface.txt", b"entry planish_main\ninput bfloat16 0 x\n", "unknown dtype bfloat16"),
        ("interface.txt", b"threads 1\n", "net/interface.txt names no entry"),
        ("library.so", b"no library", "net/library.so"),
    ],
)
def test_damage(call: Call, tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / "net" / file).write_bytes(content)
    done = call("net", *FILES)
    assert done.returncode == 1
    assert message in done.stderr
