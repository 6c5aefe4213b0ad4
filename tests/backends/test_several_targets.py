"""Artifacts that hold several targets: what is stored, and what loading chooses."""

import json
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Artifact, Reference, build, find_target, load, matching
from planish.backends.builder import joined_tensors
from planish.backends.container import Container
from planish.backends.packing import pack_all
from planish.backends.plan import Plan
from planish.ir import ArtifactError, Graph, OptionError

TARGETS = ["x86-64-v3", "x86-avxvnni", "x86-64-v4", "x86-avx512vnni"]
BEST_FIRST = ["x86-avx512vnni", "x86-avxvnni", "x86-64-v4", "x86-64-v3"]
AVX2 = frozenset(find_target("x86-64-v3").cpu_flags)


def layers(builder: Any) -> Graph:
    b = builder(3)
    x = b.input(torch.uint8, (1, 16, 9, 9))
    x = b.conv(x, (32, 16, 3, 3), padding=(1, 1, 1, 1), x_zero=7)
    x = b.conv(x, (24, 32, 1, 1), x_zero=3)
    return b.finish(b.conv(x, (24, 1, 3, 3), groups=24, x_zero=5))


@pytest.fixture(scope="module")
def compiled(builder: Any) -> tuple[Graph, Artifact]:
    graph = layers(builder)
    return graph, build(graph, TARGETS)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 16, 9, 9)).astype(np.uint8)


def parts(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def on(flags: frozenset[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "cpu_flags", lambda: flags)


def test_weights_once_a_plan_and_library_of_each(
    compiled: tuple[Graph, Artifact],
) -> None:
    graph, artifact = compiled
    assert artifact.targets == BEST_FIRST
    found = parts(artifact.content)
    folders = [f"{name}/{part}" for name in BEST_FIRST for part in ("plan.json", "library.so")]
    shared = ["manifest.json", "manifest.sha256", "parameters.safetensors"]
    assert list(found) == shared + folders
    single = build(graph, "x86-64-v3").content
    alone = parts(single)
    mine, stored = (
        Container(single, "alone").tensors(),
        Container(artifact.content, "all").tensors(),
    )
    assert all(np.array_equal(stored[name], tensor) for name, tensor in mine.items())
    # A target may store small tables of its own; weights are there once.
    weights = {name for name, tensor in stored.items() if tensor.dtype == np.int8}
    assert weights == {name for name, tensor in mine.items() if tensor.dtype == np.int8}
    assert len(weights) == 3
    for name in ("x86-64-v3/plan.json", "x86-64-v3/library.so"):
        assert alone[name] == found[name]
    manifest = json.loads(found["manifest.json"])
    assert [entry["name"] for entry in manifest["targets"]] == BEST_FIRST


def test_equal_inputs_give_equal_bytes(builder: Any, compiled: tuple[Graph, Artifact]) -> None:
    assert build(layers(builder), BEST_FIRST).content == compiled[1].content


@pytest.mark.parametrize(
    ("extra", "chosen"),
    [
        (set(), "x86-64-v3"),
        ({"avx_vnni"}, "x86-avxvnni"),
        (set(find_target("x86-64-v4").cpu_flags), "x86-64-v4"),
        (set(find_target("x86-avx512vnni").cpu_flags), "x86-avx512vnni"),
    ],
)
def test_loading_chooses_the_best(
    compiled: tuple[Graph, Artifact],
    extra: set[str],
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(AVX2 | extra, monkeypatch)
    again = Artifact(compiled[1].content)
    assert (again.target, again.manifest["target"]["name"]) == (chosen, chosen)
    assert again.targets == BEST_FIRST
    assert again.runs_here


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_equals_the_reference(
    compiled: tuple[Graph, Artifact], tmp_path: Path, target: str
) -> None:
    graph, artifact = compiled
    entry = next(e for e in artifact.manifest["targets"] if e["name"] == target)
    if reason := matching.obstacle(entry):
        pytest.skip(reason)
    artifact.save(tmp_path / "model.planish")
    forced, reference = load(tmp_path / "model.planish", target), Reference(graph)
    assert forced.target == target
    for seed in range(5):
        assert np.array_equal(forced(image(seed))[0], reference(image(seed))[0])


def test_a_target_that_is_not_there(compiled: tuple[Graph, Artifact]) -> None:
    content = compiled[1].content
    with pytest.raises(OptionError) as error:
        Artifact(content, "m.planish", "armv8")
    assert str(error.value) == (
        "the artifact has no code for target 'armv8'; at m.planish; it has " + ", ".join(BEST_FIRST)
    )
    assert Artifact(content, "m.planish", "native").target == Artifact(content).target


def test_a_target_that_this_machine_lacks(
    compiled: tuple[Graph, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(AVX2, monkeypatch)
    with pytest.raises(
        ArtifactError, match="another CPU: 'x86-avxvnni' needs avx_vnni; save it and"
    ):
        Artifact(compiled[1].content, target="x86-avxvnni")
    on(AVX2 - {"fma"}, monkeypatch)
    with pytest.raises(ArtifactError, match=r"fma; 'x86-avxvnni' needs avx_vnni, fma; "):
        Artifact(compiled[1].content)


def test_compiled_for_elsewhere(
    builder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = build(layers(builder), "x86-avxvnni").content
    on(AVX2, monkeypatch)
    artifact = build(layers(builder), "x86-avxvnni")
    assert artifact.content == content
    assert not artifact.runs_here
    assert (artifact.target, artifact.targets) == ("x86-avxvnni", ["x86-avxvnni"])
    assert [info.name for info in artifact.inputs] == ["x0"]
    for call in (lambda: artifact(image()), artifact.bench):
        with pytest.raises(ArtifactError, match="needs avx_vnni"):
            call()
    artifact.save(tmp_path / "model.planish")
    with pytest.raises(ArtifactError, match="needs avx_vnni"):
        load(tmp_path / "model.planish")


def test_a_damaged_target_hurts_no_other(
    compiled: tuple[Graph, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parts(compiled[1].content)
    found["x86-64-v4/library.so"] = b"\x7fELF" + bytes(100)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, part in found.items():
            archive.writestr(name, part)
    on(AVX2, monkeypatch)
    assert Artifact(buffer.getvalue()).target == "x86-64-v3"
    on(frozenset(find_target("x86-64-v4").cpu_flags), monkeypatch)
    with pytest.raises(ArtifactError, match=r"damaged: x86-64-v4/library.so has a wrong checksum"):
        Artifact(buffer.getvalue())


def test_tables_of_one_name_that_differ_are_kept_apart() -> None:
    plans = []
    for name, values in (("x86-64-v4", [1, 2]), ("x86-64-v3", [1, 2]), ("x86-avxvnni", [3, 4])):
        plan = Plan(find_target(name), 1)
        plan.parameter("raw", tensor=plan.store("shared", np.arange(4)))
        plan.parameter("raw", tensor=plan.store("table", np.array(values)))
        plan.store("unused", np.zeros(9))
        plans.append(plan)
    tensors = joined_tensors(plans)
    assert sorted(tensors) == ["shared", "table", "table@x86-avxvnni"]
    for plan, values in zip(plans, ([1, 2], [1, 2], [3, 4]), strict=True):
        packed = pack_all(plan.recipes, tensors, plan.parameter_bytes)
        shared, table = (recipe["offset"] for recipe in plan.recipes)
        assert packed[shared : shared + 32].view(np.int64).tolist() == [0, 1, 2, 3]
        assert packed[table : table + 16].view(np.int64).tolist() == values


def test_names_of_targets(builder: Any) -> None:
    odd = replace(find_target("x86-64-v3"), name="../x86")
    with pytest.raises(OptionError, match=r"a target is named '\.\./x86'"):
        build(layers(builder), odd)
