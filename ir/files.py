"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import PlanishError


def make_folder(folder: str | os.PathLike[str], called: str = "the folder") -> Path:
    """Make a folder, with those that it lies in, unless it is there.

    Args:
        folder: Its path.
        called: How the error calls it.

    Raises:
        PlanishError: It can't be made.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanishError(
            f"can't make {called}: {error.strerror or error}", where=str(path)
        ) from error
    return path


def write_together(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """Write several files of a folder, all or none of them.

    Args:
        folder: Where they go; made if it is missing.
        contents: By name.

    Raises:
        PlanishError: As for `write_beside`; no file that was there is changed.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=place) as fresh:
            for name, content in contents.items():
                write_beside(Path(fresh) / name, content)
            blocked = next((name for name in contents if (place / name).is_dir()), None)
            if blocked is not None:
                raise PlanishError(
                    f"can't write {blocked}: there is a folder of that name",
                    where=str(place),
                    cure="move it away; nothing was written",
                )
            for name in contents:
                os.replace(Path(fresh) / name, place / name)
    except OSError as error:
        raise PlanishError(
            f"can't write the files: {error.strerror or error}",
            where=str(place),
            cure="check the folder, its permissions and the free space; nothing was written",
        ) from error


def write_beside(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to a temporary file beside `path`, then rename it into place.

    Raises:
        PlanishError: The folder does not exist, is not writable, or the disk is full; nothing
            is left behind and an older file at `path` is untouched.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise PlanishError(
            f"can't write {target.name}: {error.strerror or error}",
            where=str(target),
            cure="check the folder, its permissions and the free space; nothing was written",
        ) from error
