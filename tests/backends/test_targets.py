"""The registry of targets, and what native chooses."""

import pytest

from planish.backends import TARGETS, find_target
from planish.backends.targets import native
from planish.backends.targets.native import AVX512, best_x86
from planish.backends.targets.x86_64_v3 import FLAGS
from planish.ir import OptionError, TargetError


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_loads(name: str) -> None:
    target = find_target(name)
    assert target.name == name
    assert target.vector_bits == 32 * target.lanes
    assert target.channel_multiple == 8
    assert find_target(target) is target


def test_unknown_target() -> None:
    with pytest.raises(OptionError, match="unknown target 'nativ'; did you mean 'native'"):
        find_target("nativ")


@pytest.mark.parametrize(
    ("flags", "instruction", "bits"),
    [
        (FLAGS, "vpmaddwd", 256),
        ((*FLAGS, "avx_vnni"), "vpdpbusd", 256),
        ((*FLAGS, *AVX512), "vpmaddwd", 256),
        ((*FLAGS, *AVX512, "avx512_vnni"), "vpdpbusd", 512),
    ],
)
def test_native_fits_the_processor(flags: tuple[str, ...], instruction: str, bits: int) -> None:
    target = best_x86(flags)
    assert (target.instruction, target.vector_bits) == (instruction, bits)
    assert set(target.cpu_flags) <= set(flags)


def test_native_refuses_an_old_processor() -> None:
    with pytest.raises(TargetError, match="lacks avx2, fma"):
        best_x86(set(FLAGS) - {"avx2", "fma"})


def test_native_refuses_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "machine", lambda: "riscv64")
    with pytest.raises(TargetError, match="no target for this machine"):
        find_target("native")
