"""What `unpack` writes for programs without Python."""

import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from planish.backends import Artifact, build, find_target
from planish.backends.container import Container
from planish.backends.deployment import unpack
from planish.backends.packing import pack_all
from planish.ir import ArtifactError, OptionError, PlanishError

planish = torch.ops.planish
TARGETS = ["x86-64-v3", "x86-avx512vnni"]


@pytest.fixture(scope="module")
def compiled(builder: Any) -> Artifact:
    b = builder(2)
    x = b.input(torch.float32, (2, 3, 9, 9))
    q = b.call(planish.quantize.default, x, 0.25, 9, 0, 255, torch.uint8)
    first = b.conv(q, (16, 3, 3, 3), x_zero=9)
    last = b.conv(first, (8, 16, 1, 1), x_zero=3)
    graph = b.finish(b.call(planish.dequantize.default, last, 0.5, 100), first)
    return build(graph, TARGETS, threads=2)


@pytest.fixture
def file(compiled: Artifact, tmp_path: Path) -> Path:
    compiled.save(tmp_path / "model.planish")
    return tmp_path / "model.planish"


def test_the_three_files(compiled: Artifact, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    assert unpack(file, folder, "x86-64-v3") == "x86-64-v3"
    names = ["interface.txt", "library.so", "parameters.bin"]
    assert sorted(path.name for path in folder.iterdir()) == names
    plan = Artifact(compiled.content, target="x86-64-v3", elsewhere=True).manifest
    lines, _, checksum = (folder / "interface.txt").read_text().rpartition("checksum ")
    assert int(checksum, 16) == zlib.crc32(lines.encode())
    assert lines == (
        "entry planish_main\n"
        "threads 2\n"
        "needs_runtime 0\n"  # too small for threads
        "machine x86_64\n"
        f"cpu_flags {' '.join(sorted(find_target('x86-64-v3').cpu_flags))}\n"
        f"parameters {plan['parameter_bytes']}\n"
        f"workspace {plan['workspace_bytes']}\n"
        "input float32 4 2 3 9 9 x0\n"
        "quantized uint8 0.25 9\n"
        "output float32 4 2 8 7 7 output0\n"
        "quantized uint8 0.5 100\n"
        "output uint8 4 2 16 7 7 output1\n"
    )
    assert (folder / "parameters.bin").stat().st_size == plan["parameter_bytes"]
    assert (folder / "library.so").read_bytes()[:4] == b"\x7fELF"


def test_parameters_are_packed_for_the_target(file: Path, tmp_path: Path) -> None:
    container = Container(file.read_bytes(), "model")
    packed: dict[str, bytes] = {}
    for target in TARGETS:
        unpack(file, tmp_path / target, target)
        plan = container.plan(target)
        expected = pack_all(plan["recipes"], container.tensors(), plan["parameter_bytes"])
        packed[target] = (tmp_path / target / "parameters.bin").read_bytes()
        assert packed[target] == expected.tobytes()
        assert (tmp_path / target / "library.so").read_bytes() == container.library(target)
    assert packed[TARGETS[0]] != packed[TARGETS[1]]


def test_which_target(file: Path, tmp_path: Path, builder: Any) -> None:
    with pytest.raises(OptionError, match=r"several targets; .*name one: x86-avx512vnni, "):
        unpack(file, tmp_path / "out")
    with pytest.raises(OptionError, match=r"no code for target 'armv8'; .*it has x86-avx512vnni"):
        unpack(file, tmp_path / "out", "armv8")
    assert not (tmp_path / "out").exists()
    b = builder(2)
    x = b.input(torch.uint8, (1, 8, 4, 4))
    build(b.finish(b.conv(x, (8, 8, 1, 1))), "x86-avx512vnni").save(tmp_path / "one.planish")
    assert unpack(tmp_path / "one.planish", tmp_path / "out") == "x86-avx512vnni"


def test_mistakes(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="can't read the artifact"):
        unpack(tmp_path / "missing", tmp_path / "out", TARGETS[0])
    (tmp_path / "text").write_text("no artifact")
    with pytest.raises(ArtifactError, match="not a planish artifact"):
        unpack(tmp_path / "text", tmp_path / "out", TARGETS[0])
    with pytest.raises(PlanishError, match=r"can't write the files: .*exists"):
        unpack(file, tmp_path / "text", TARGETS[0])


def test_all_files_or_none(file: Path, tmp_path: Path) -> None:
    unpack(file, tmp_path, TARGETS[0])
    before = {name: (tmp_path / name).read_bytes() for name in ("library.so", "parameters.bin")}
    (tmp_path / "interface.txt").unlink()
    (tmp_path / "interface.txt").mkdir()
    with pytest.raises(PlanishError, match=r"can't write interface.txt: .*nothing was written"):
        unpack(file, tmp_path, TARGETS[1])
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not list(tmp_path.glob(".new-*"))
