"""The emulated ARM machine itself: it runs artifacts, says what it lacks, and is set up once."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Reference, build
from planish.ir.errors import TargetError
from tests.arm import Emulated, EmulationError, environment, set_up
from tests.arm.debian import run
from tests.arm.plain import plain_arm

Processors = Callable[[str], Emulated]
arm = pytest.mark.arm


@arm
@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76", "max"])
def test_it_is_arm(emulated: Processors, cpu: str) -> None:
    assert emulated(cpu).describe()["machine"] == "aarch64"


@arm
def test_what_planish_refuses_there(emulated: Processors, builder: Any) -> None:
    b = builder(1)
    x = b.input(torch.uint8, (1, 8, 4, 4))
    artifact = build(b.finish(b.conv(x, (8, 8, 1, 1))), "x86-64-v3")
    with pytest.raises(EmulationError, match=r"ArtifactError: .*is for x86_64, this machine is"):
        emulated("max").run(artifact, [[np.zeros((1, 8, 4, 4), np.uint8)]])


@arm
def test_a_process_that_ends_is_started_anew(emulated: Processors) -> None:
    processor = emulated("max")
    processor.describe()
    started = processor._process
    assert started is not None
    os.kill(started.pid, signal.SIGKILL)
    with pytest.raises(EmulationError, match="the emulated max ended with SIGKILL"):
        processor.describe()
    assert processor.describe()["machine"] == "aarch64"


@arm
def test_setting_up_again_does_nothing(emulated: Processors) -> None:
    emulated("max")
    said: list[str] = []
    begun = time.monotonic()
    set_up(say=said.append)
    assert said == []
    assert time.monotonic() - begun < 1


def test_what_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: object) -> None:
        raise TargetError(f"downloading {words[0]} failed: 404 Not Found", where="apt-get")

    older = tmp_path / "arm" / "site" / "kept"
    older.parent.mkdir(parents=True)
    older.touch()
    monkeypatch.setattr(environment, "unpack", broken)
    with pytest.raises(TargetError, match="404 Not Found"):
        set_up(tmp_path / "arm")
    assert older.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arm", "arm.lock"]


def test_a_command_that_fails() -> None:
    with pytest.raises(TargetError) as error:
        run(["sh", "-c", "echo first; echo E: no space >&2; exit 3"], "downloading x", "try again")
    assert str(error.value) == "downloading x failed: E: no space; at sh; try again"
    with pytest.raises(TargetError, match="it said nothing"):
        run(["false"], "nothing", "try again")


def test_no_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match=r"there is no apt-get, .*set it up on Debian"):
        set_up(tmp_path / "arm")


def test_no_cross_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match=r"apt install g[+][+]-aarch64-linux-gnu"):
        environment.require_compiler()


@arm
def test_values_equal_the_reference(
    emulated: Processors, builder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", environment.require_compiler())
    b = builder(3)
    x = b.input(torch.uint8, (1, 16, 9, 9))
    graph = b.finish(b.conv(x, (32, 16, 3, 3), padding=(1, 1, 1, 1), x_zero=7))
    artifact, reference = build(graph, plain_arm()), Reference(graph)
    assert not artifact.runs_here
    samples = [[b.values(torch.uint8, (1, 16, 9, 9)).numpy()] for _ in range(20)]
    for sample, (found,) in zip(
        samples, emulated("cortex-a72").run(artifact, samples), strict=True
    ):
        assert np.array_equal(found, reference(*sample)[0])
