"""The artifact's file: a zip of what all targets share, and a folder for each target.

    manifest.json             inputs, outputs, targets, memory, checksums; see `builder`
    manifest.sha256           the manifest's own checksum
    parameters.safetensors    weights as the graph has them, stored once
    <target>/plan.json        how loading packs the weights for this target, and the kernel calls
    <target>/library.so       its machine code; library.cubin for a GPU

Equal contents give equal bytes: fixed order, fixed times. Nothing is unpickled, and no part is used
before its checksum fits. LZMA packs trained int8 weights 4 % smaller than deflate, but takes a
second a megabyte (of ViT-B's 90 seconds of compilation, 72): large parts are deflated.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from planish.ir.errors import ArtifactError

from .manifest import check_manifest, check_plan, damage_named

FORMAT = 2
MANIFEST, CHECKSUM, PARAMETERS = "manifest.json", "manifest.sha256", "parameters.safetensors"
PLAN, LIBRARY, CUBIN = "plan.json", "library.so", "library.cubin"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LARGEST = 1 << 32
# Parts of more bytes than this are deflated.
_LZMA_LIMIT = 4 << 20
_CURE = "copy it again or compile the model anew"


def write_container(
    manifest: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    targets: Mapping[str, tuple[dict[str, Any], bytes]],
) -> bytes:
    """Return the file's bytes. The manifest gets the format version and the checksums.

    Args:
        manifest: What all targets share, as plain JSON.
        tensors: What their plans refer to.
        targets: By name, a target's plan as plain JSON and its library.
    """
    parts = {PARAMETERS: save_tensors({name: tensors[name] for name in sorted(tensors)})}
    for name, (plan, library) in targets.items():
        parts[f"{name}/{PLAN}"] = _json(plan)
        parts[f"{name}/{plan.get('library', LIBRARY)}"] = library
    sums = {name: _digest(part) for name, part in parts.items()}
    complete = {"format": "planish-artifact", "version": FORMAT, **manifest, "sha256": sums}
    text = _json(complete)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in {MANIFEST: text, CHECKSUM: _digest(text).encode(), **parts}.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            small = len(content) <= _LZMA_LIMIT
            info.compress_type = zipfile.ZIP_LZMA if small else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


class Container:
    """An artifact's file, opened: the manifest is checked, each part when it is read.

    Attributes:
        manifest: What all targets share.
        where: The file's name, for errors; None where there is no file.
    """

    def __init__(self, content: bytes, where: str | None = None) -> None:
        """Open a file's bytes.

        Raises:
            ArtifactError: Not an artifact, damaged, or of another format.
        """
        self._content = content
        self.where = where
        names = self._names()
        if MANIFEST not in names:
            raise ArtifactError("not a planish artifact: it has no manifest", where=where)
        text, checksum = self._read(MANIFEST), self._read(CHECKSUM)
        try:
            self.manifest: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{MANIFEST} is no JSON") from error
        _check_format(self.manifest, where)
        if checksum != _digest(text).encode():
            raise self._damaged(f"{MANIFEST} has a wrong checksum")
        _check_complete(self.manifest, where)
        with damage_named(where):
            check_manifest(self.manifest)
        for name in self.manifest["sha256"]:
            if name not in names:
                raise self._damaged(f"it has no {name}")

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the stored tensors.

        Raises:
            ArtifactError: Damaged.
        """
        try:
            return load_tensors(self._part(PARAMETERS))
        except SafetensorError as error:
            raise self._damaged(f"{PARAMETERS}: {error}") from error

    def plan(self, target: str) -> dict[str, Any]:
        """Return a target's plan.

        Raises:
            ArtifactError: Damaged.
        """
        try:
            plan = json.loads(self._part(f"{target}/{PLAN}"))
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{target}/{PLAN} is no JSON") from error
        with damage_named(self.where):
            check_plan(plan)
        return plan

    def library(self, target: str, name: str = LIBRARY) -> bytes:
        """Return a target's machine code, under the name that its plan gives it.

        Raises:
            ArtifactError: Damaged.
        """
        return self._part(f"{target}/{name}")

    def _part(self, name: str) -> bytes:
        part = self._read(name)
        if _digest(part) != self.manifest["sha256"].get(name):
            raise self._damaged(f"{name} has a wrong checksum")
        return part

    def _names(self) -> set[str]:
        try:
            with zipfile.ZipFile(io.BytesIO(self._content)) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            packed = self._content[:2] == b"PK"
            what = "the artifact is damaged" if packed else "not a planish artifact"
            raise ArtifactError(f"{what}: {error}", where=self.where, cure=_CURE) from error
        if any(entry.file_size > _LARGEST for entry in entries):
            raise self._damaged("a part is too large")
        return {entry.filename for entry in entries}

    def _read(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(self._content)) as archive:
                return archive.read(name)
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            EOFError,
            KeyError,
            ValueError,
            NotImplementedError,  # a flipped bit in a header reads as an unknown method
            RuntimeError,  # or as encryption
        ) as error:
            raise self._damaged(f"{name}: {error}") from error

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(f"the artifact is damaged: {what}", where=self.where, cure=_CURE)


def _check_format(manifest: Any, where: str | None) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != "planish-artifact":
        raise ArtifactError("not a planish artifact: its manifest is another's", where=where)
    if manifest.get("version") != FORMAT:
        raise ArtifactError(
            f"the artifact has format {manifest.get('version')}, this planish reads {FORMAT}",
            where=where,
            cure="compile the model anew with this version",
        )


def _check_complete(manifest: dict[str, Any], where: str | None) -> None:
    missing = {"inputs", "outputs", "structure", "threads", "targets", "sha256"} - set(manifest)
    if missing or not isinstance(manifest["sha256"], dict) or not manifest["targets"]:
        raise ArtifactError(
            "the artifact is damaged: its manifest is not complete", where=where, cure=_CURE
        )


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return a file's bytes.

    Raises:
        ArtifactError: It can't be read.
    """
    if not isinstance(path, str | os.PathLike):
        raise ArtifactError(
            f"can't read the artifact: a {type(path).__name__} is no path",
            cure="give the name of its file",
        )
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"can't read the artifact: {reason}", where=os.fspath(path)) from error


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
