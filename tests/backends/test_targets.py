"""The registry of targets, lists of them, and what native chooses."""

from dataclasses import replace

import pytest

from planish.backends import TARGETS, find_target
from planish.backends.targets import BEST_FIRST, find_targets, native
from planish.backends.targets.native import best_for
from planish.backends.targets.x86_64_v3 import FLAGS as AVX2
from planish.backends.targets.x86_64_v4 import FLAGS as AVX512
from planish.ir import OptionError, TargetError


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_loads(name: str) -> None:
    target = find_target(name)
    assert target.name == name
    assert target.vector_bits == 32 * target.lanes
    gpu = name.startswith("cuda-")
    assert target.channel_multiple == (16 if gpu or target.lanes == 16 else 8)
    family = "aarch64" if name.startswith("armv8") else "x86_64"
    assert target.machine == ("cuda" if gpu else family)
    assert find_target(target) is target


def test_unknown_target() -> None:
    with pytest.raises(OptionError, match="unknown target 'nativ'; did you mean 'native'"):
        find_target("nativ")
    with pytest.raises(OptionError, match="'x86-64-v3,armv8' names several targets"):
        find_target("x86-64-v3,armv8")


@pytest.mark.parametrize(
    ("flags", "name", "bits"),
    [
        (AVX2, "x86-64-v3", 256),
        ((*AVX2, "avx_vnni"), "x86-avxvnni", 256),
        (AVX512, "x86-64-v4", 512),
        ((*AVX512, "avx512_vnni"), "x86-avx512vnni", 512),
        ((*AVX512, "avx512_vnni", "avx_vnni"), "x86-avx512vnni", 512),
        ((*AVX2, "avx512f"), "x86-64-v3", 256),
    ],
)
def test_native_fits_the_processor(
    flags: tuple[str, ...], name: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = best_for("x86_64", flags)
    assert (best.name, best.vector_bits) == (name, bits)
    monkeypatch.setattr(native, "machine", lambda: "x86_64")
    monkeypatch.setattr(native, "cpu_flags", lambda: frozenset(flags))
    found = find_target("native")
    assert replace(found, name=name, description=best.description) == best
    # Beside its own kind, native is that; beside another, both stay, the better one first.
    assert find_targets(["native", name]) == [best]
    if name != "x86-64-v3":
        assert find_targets(["x86-64-v3", "native"]) == [found, find_target("x86-64-v3")]


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("asimd", "crc32"), "armv8"),
        (("asimd", "asimddp"), "armv8-dotprod"),
        (("asimd", "asimddp", "i8mm"), "armv8-i8mm"),
        (("asimd", "i8mm"), "armv8"),
    ],
)
def test_native_fits_an_arm_processor(flags: tuple[str, ...], name: str) -> None:
    assert best_for("aarch64", flags).name == name


def test_native_refuses_an_old_processor() -> None:
    with pytest.raises(TargetError, match="lacks avx2, fma"):
        best_for("x86_64", set(AVX2) - {"avx2", "fma"})


def test_native_refuses_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "machine", lambda: "riscv64")
    with pytest.raises(TargetError, match=r"no target for this machine \(riscv64\)"):
        find_target("native")


def test_lists_are_ordered_best_first() -> None:
    own = replace(find_target("x86-64-v3"), name="own", tile=(2, 16))
    shuffled = ["x86-64-v3", "x86-avx512vnni", own, "x86-64-v4", "x86-avxvnni"]
    x86 = [name for name in BEST_FIRST if name.startswith("x86")]
    assert [target.name for target in find_targets(shuffled)] == ["own", *x86]
    mixed = find_targets(["x86-64-v3", "cuda-sm75", "cuda-sm80"])
    assert [target.name for target in mixed] == ["cuda-sm80", "cuda-sm75", "x86-64-v3"]
    assert find_targets("x86-64-v4") == [find_target("x86-64-v4")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no target to compile for"),
        (["x86-64-v3", "x86-64-v3"], "target 'x86-64-v3' is given twice"),
        (["x86-64-v3", "x86-64-v5"], "unknown target 'x86-64-v5'; did you mean"),
        (["x86-64-v3", 4], "a target is a name or a Target, not 4"),
        (4, "a target is a name or a Target, not 4"),
        ({"x86-64-v3"}, "a target is a name or a Target, not {'x86-64-v3'}"),
    ],
)
def test_bad_lists(names: object, message: str) -> None:
    with pytest.raises(OptionError) as error:
        find_targets(names)  # type: ignore[arg-type]
    assert message in str(error.value)
