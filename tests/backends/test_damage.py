"""Damaged and forged files: one error that says so, from loading and from unpacking."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from planish.backends import Artifact, build, load
from planish.backends.deployment import unpack
from planish.ir import ArtifactError

planish = torch.ops.planish
LIBRARY, PLAN = "x86-64-v3/library.so", "x86-64-v3/plan.json"


@pytest.fixture(scope="module")
def compiled(builder: Any) -> Artifact:
    b = builder(5)
    x = b.input(torch.float32, (1, 3, 6, 6))
    q = b.call(planish.quantize.default, x, 0.03, 9, 0, 255, torch.uint8)
    y = b.conv(q, (8, 3, 3, 3), x_zero=9)
    return build(b.finish(b.call(planish.dequantize.default, y, 0.1, 100)), "x86-64-v3")


def rewrite(content: bytes, change: Callable[[dict[str, bytes]], object]) -> bytes:
    """Return the zip with other parts."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def edit_manifest(content: bytes, **changes: Any) -> bytes:
    def change(parts: dict[str, bytes]) -> None:
        manifest = json.loads(parts["manifest.json"])
        manifest.update(changes)
        parts["manifest.json"] = json.dumps(manifest).encode()

    return rewrite(content, change)


def sealed(content: bytes) -> bytes:
    """Return the artifact with the checksum that its manifest should have."""

    def change(parts: dict[str, bytes]) -> None:
        digest = hashlib.sha256(parts["manifest.json"]).hexdigest()
        parts["manifest.sha256"] = digest.encode()

    return rewrite(content, change)


def damage_library(parts: dict[str, bytes]) -> None:
    library = bytearray(parts[LIBRARY])
    library[len(library) // 2] ^= 1
    parts[LIBRARY] = bytes(library)


def forged(content: bytes, **changes: Any) -> bytes:
    """Return an artifact whose manifest, or else plan, says something else, with right checksums.

    A tensor's part is named as in `outputs_shape`.
    """

    def change(parts: dict[str, bytes]) -> None:
        manifest, plan = json.loads(parts["manifest.json"]), json.loads(parts[PLAN])
        for name, value in changes.items():
            if name.startswith("outputs_"):
                manifest["outputs"][0][name.removeprefix("outputs_")] = value
            elif name == "plan":
                plan = value
            else:
                (plan if name in plan else manifest)[name] = value
        parts[PLAN] = json.dumps(plan).encode()
        manifest["sha256"][PLAN] = hashlib.sha256(parts[PLAN]).hexdigest()
        parts["manifest.json"] = json.dumps(manifest).encode()

    return sealed(rewrite(content, change))


FORGED: dict[str, list[Any]] = {
    "workspace_bytes": [10**15, "a", None, 0, -1],
    "parameter_bytes": [10**15, "a", None, 0],
    "entry": [3],
    "recipes": [5, [1]],
    "plan": [7, None],
    "outputs": [[], None],
    "outputs_shape": [[-1, 10], [2**30, 2**30], [1.5], 3],
    "outputs_dtype": ["nope", "object", "U5", None],
    "structure": [None, 1, -1, ["tuple", [0, 1]], ["set", [0]]],
    "threads": [0, "2"],
    "targets": [["x86-64-v3"], [3], [{"machine": "x86_64"}], "x86-64-v3"],
}

DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "not a planish artifact"),
    "text": (lambda _: b"hello, this is no model\n" * 50, "not a planish artifact"),
    "truncated": (lambda content: content[: len(content) // 2], "is damaged"),
    "flipped bit": (lambda c: c[:3000] + bytes([c[3000] ^ 8]) + c[3001:], "is damaged"),
    "other zip": (lambda c: rewrite(c, lambda parts: parts.pop("manifest.json")), "no manifest"),
    "no library": (lambda c: rewrite(c, lambda parts: parts.pop(LIBRARY)), "is damaged: it has no"),
    "wrong checksum": (lambda c: rewrite(c, damage_library), "wrong checksum"),
    "other format": (lambda c: edit_manifest(c, format="other"), "manifest is another's"),
    "newer version": (lambda c: edit_manifest(c, version=99), "has format 99"),
    "older version": (lambda c: edit_manifest(c, version=1), "has format 1, this planish reads 2"),
    "edited": (lambda c: edit_manifest(c, threads=7), "manifest.json has a wrong checksum"),
    "incomplete": (lambda c: sealed(edit_manifest(c, targets=[])), "its manifest is not complete"),
    **{
        f"{name} {value!r:.12}": (partial(forged, **{name: value}), "damaged: its manifest says")
        for name, values in FORGED.items()
        for value in values
    },
    "no sizes": (lambda c: sealed(edit_manifest(c, inputs=[{}])), "says what can't be"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files(compiled: Artifact, tmp_path: Path, name: str) -> None:
    change, message = DAMAGES[name]
    path = tmp_path / "model.planish"
    path.write_bytes(change(compiled.content))
    with pytest.raises(ArtifactError) as error:
        load(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in FORGED if name != "threads"])
def test_forged_files_are_not_unpacked(compiled: Artifact, tmp_path: Path, name: str) -> None:
    for value in FORGED[name]:
        (tmp_path / "a.planish").write_bytes(forged(compiled.content, **{name: value}))
        with pytest.raises(ArtifactError, match="damaged: its manifest says what can't be"):
            unpack(tmp_path / "a.planish", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_path() -> None:
    for path in (5, None, b"a.planish"):
        with pytest.raises(ArtifactError, match="is no path; give the name of its file"):
            load(path)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="can't read the artifact"):
        load("a\0b")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="can't read the artifact"):
        load(tmp_path / "nothing.planish")
