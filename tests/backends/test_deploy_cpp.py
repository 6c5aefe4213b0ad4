"""The C++ example on this machine: the same values as `planish.load`, and what it refuses."""

import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Artifact, build
from planish.backends.deployment import unpack
from tests.deployed import EXAMPLE, build_example, deploy

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
        (("net", "net", "in1", "out0", "out1"), "net is a folder"),
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
        ("library.so", b"no library", "net/library.so is for another machine or damaged; the lo"),
    ],
)
def test_damage(call: Call, tmp_path: Path, file: str, content: bytes, message: str) -> None:
    if file == "interface.txt":
        content = with_checksum(content)
    (tmp_path / "net" / file).write_bytes(content)
    done = call("net", *FILES)
    assert done.returncode == 1
    assert message in done.stderr


def with_checksum(lines: bytes) -> bytes:
    return b"%bchecksum %08x\n" % (lines, zlib.crc32(lines))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"workspace \d+", "workspace 0"),
        (r"workspace \d+", "workspace -1"),
        (r"threads 1", "threads 100000"),
        (r"output uint8 4 1", "output uint8 4 4611686018427387904"),
        (r"checksum \w+", "checksum"),
        (r"checksum \w+\n", ""),
    ],
)
def test_changed_numbers(call: Call, tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "net" / "interface.txt"
    text, count = re.subn(old, new, path.read_text())
    assert count == 1
    path.write_text(text)
    done = call("net", *FILES)
    assert done.returncode == 1
    assert done.stderr == (
        "deploy: net/interface.txt is damaged or was changed; unpack the artifact anew\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("machine x86_64", "machine riscv64", "the library is for riscv64, this machine is x86_64"),
        ("cpu_flags", "cpu_flags no_such", "needs what this processor lacks: no_such"),
    ],
)
def test_another_processor(call: Call, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "net" / "interface.txt"
    lines = path.read_text().rpartition("checksum")[0]
    path.write_bytes(with_checksum(lines.replace(old, new).encode()))
    done = call("net", *FILES)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_python_without_planish(tmp_path: Path) -> None:
    words = ["make", "-C", str(EXAMPLE), f"OUT={tmp_path / 'deploy'}", "PYTHON=no-such-python"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no-such-python has no tvm_ffi: name the Python that has planish" in done.stderr
