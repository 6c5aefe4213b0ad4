"""Devices named on the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planish.backends.artifact import Artifact

RPC_HELP = "host:port of a device's RPC server, to do it there; see docs/remote.md."


def device_address(rpc: str) -> tuple[str, int]:
    """Return (host, port) of what the user wrote.

    Raises:
        OptionError: It is not host:port.
    """
    from planish.backends.remote.address import parse_address

    return parse_address(rpc, "device", "127.0.0.1:9090")


@contextlib.contextmanager
def loaded_artifact(path: Path, target: str | None, rpc: str | None) -> Iterator[Artifact]:
    """Load an artifact, on this machine or for as long as a session with a device lasts.

    Raises:
        ArtifactError: It can't be read, or can't run there.
        OptionError: It has no such target, or the device is not host:port.
        TargetError: No device answers.
    """
    if rpc is None:
        from planish.backends import load

        yield load(path, target)
        return
    from planish.backends.container import read_file
    from planish.backends.remote.artifact import RemoteArtifact
    from planish.backends.remote.device import Device

    address, content = device_address(rpc), read_file(path)
    with Device(address) as device:
        yield RemoteArtifact(content, str(path), device, target)
