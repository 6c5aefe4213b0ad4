"""The artifact's file: a zip of manifest.json, parameters.safetensors and library.so.

Equal contents give equal bytes: fixed order, fixed times. Nothing is unpickled, and nothing is
loaded before every checksum fits. LZMA packs trained int8 weights 4 % smaller than deflate, but
takes a second a megabyte (of ViT-B's 90 seconds of compilation, 72): large parts are deflated.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from planish.ir.errors import ArtifactError

FORMAT = 1
MANIFEST, PARAMETERS, LIBRARY = "manifest.json", "parameters.safetensors", "library.so"
CHECKSUM = "manifest.sha256"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LARGEST = 1 << 32
# Parts of more bytes than this are deflated.
_LZMA_LIMIT = 4 << 20


def write_container(
    manifest: dict[str, Any], tensors: dict[str, NDArray[Any]], library: bytes
) -> bytes:
    """Return the file's bytes. The manifest gets the format version and the checksums."""
    parameters = save_tensors({name: tensors[name] for name in sorted(tensors)})
    sums = {PARAMETERS: _digest(parameters), LIBRARY: _digest(library)}
    complete = {"format": "planish-artifact", "version": FORMAT, **manifest, "sha256": sums}
    text = json.dumps(complete, sort_keys=True, separators=(",", ":"), allow_nan=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        entries = (
            (MANIFEST, text.encode()),
            (CHECKSUM, _digest(text.encode()).encode()),
            (PARAMETERS, parameters),
            (LIBRARY, library),
        )
        for name, content in entries:
            info = zipfile.ZipInfo(name, _EPOCH)
            small = len(content) <= _LZMA_LIMIT
            info.compress_type = zipfile.ZIP_LZMA if small else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def read_container(
    content: bytes, where: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]], bytes]:
    """Return (manifest, tensors, library) after checking everything that can be checked.

    Raises:
        ArtifactError: Not an artifact, damaged, or of a newer format.
    """
    damaged = "copy it again or compile the model anew"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = set(archive.namelist())
            if MANIFEST not in names:
                raise ArtifactError("not a planish artifact: it has no manifest", where=where)
            if any(info.file_size > _LARGEST for info in archive.infolist()):
                raise ArtifactError("the artifact is damaged: a part is too large", where=where)
            text = archive.read(MANIFEST)
            manifest = json.loads(text)
            _check_manifest(manifest, where)
            if archive.read(CHECKSUM).decode() != _digest(text):
                raise ArtifactError(
                    f"the artifact is damaged: {MANIFEST} has a wrong checksum",
                    where=where,
                    cure=damaged,
                )
            parts = {name: archive.read(name) for name in (PARAMETERS, LIBRARY)}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        what = "the artifact is damaged" if content[:2] == b"PK" else "not a planish artifact"
        raise ArtifactError(f"{what}: {error}", where=where, cure=damaged) from error
    except (KeyError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise ArtifactError("the artifact is damaged", where=where, cure=damaged) from error
    for name, part in parts.items():
        if _digest(part) != manifest["sha256"].get(name):
            raise ArtifactError(
                f"the artifact is damaged: {name} has a wrong checksum", where=where, cure=damaged
            )
    try:
        return manifest, load_tensors(parts[PARAMETERS]), parts[LIBRARY]
    except SafetensorError as error:
        raise ArtifactError(
            f"the artifact is damaged: {PARAMETERS}: {error}", where=where, cure=damaged
        ) from error


def _check_manifest(manifest: Any, where: str) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != "planish-artifact":
        raise ArtifactError("not a planish artifact: its manifest is another's", where=where)
    if manifest.get("version") != FORMAT:
        raise ArtifactError(
            f"the artifact has format {manifest.get('version')}, this planish reads {FORMAT}",
            where=where,
            cure="compile the model anew with this version",
        )
    missing = {"inputs", "outputs", "structure", "target", "recipes", "sha256"} - set(manifest)
    if missing or not isinstance(manifest["sha256"], dict):
        raise ArtifactError("the artifact is damaged: its manifest is not complete", where=where)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return a file's bytes.

    Raises:
        ArtifactError: It can't be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"can't read the artifact: {error.strerror or error}", where=os.fspath(path)
        ) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
