"""Devices named on the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .console import say

if TYPE_CHECKING:
    from planish.backends.artifact import Artifact

RPC_HELP = "host:port of a device's RPC server, to do it there; see docs/remote.md."
COMPILER_HELP = "Links code for another machine (aarch64-linux-gnu-g++ for ARM)."
SYSROOT_HELP = "The other machine's root folder, if its compiler asks."


def device_address(rpc: str) -> tuple[str, int]:
    """Return (host, port) of what the user wrote.

    Raises:
        OptionError: It is not host:port.
    """
    from planish.backends.remote.address import parse_address

    return parse_address(rpc, "device", "127.0.0.1:9090")


def load_here(path: Path, target: str | None) -> Artifact:
    """Load an artifact on this machine; say which targets the GPU's driver could not load.

    Raises:
        ArtifactError: It can't be read, or can't run here.
        OptionError: It has no such target.
    """
    from planish.backends import load

    artifact = load(path, target)
    for reason in artifact.passed_over.values():
        say(f"passed over: {reason}; {artifact.target} runs instead")
    return artifact


@contextlib.contextmanager
def loaded_artifact(path: Path, target: str | None, rpc: str | None) -> Iterator[Artifact]:
    """Load an artifact, on this machine or for as long as a session with a device lasts.

    Raises:
        ArtifactError: It can't be read, or can't run there.
        OptionError: It has no such target, or the device is not host:port.
        TargetError: No device answers.
    """
    if rpc is None:
        yield load_here(path, target)
        return
    from planish.backends.container import read_file
    from planish.backends.remote import Device, RemoteArtifact

    address, content = device_address(rpc), read_file(path)
    with Device(address) as device:
        yield RemoteArtifact(content, str(path), device, target)
