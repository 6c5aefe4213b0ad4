"""Debian's packages of another architecture, unpacked into a folder: nothing is installed.

apt works on lists, a cache and a state of its own, so that it needs no root and leaves the
machine's package lists alone.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from planish.ir.errors import TargetError

NETWORK = "check the network and the package sources, then try again"


def unpack(packages: Sequence[str], architecture: str, into: Path, work: Path) -> None:
    """Download packages with all that they depend on, and unpack them.

    Args:
        packages: Their names.
        architecture: Debian's name of it: "arm64".
        into: The folder that becomes the packages' root.
        work: An empty folder for apt; it may go afterwards.

    Raises:
        TargetError: There is no apt, or it can't get them.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise TargetError(
                f"there is no {tool}, and the emulated environment is made of Debian's packages",
                cure="set it up on Debian or Ubuntu",
            )
    into.mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-qq", *_own_state(work, architecture)]
    run([*apt, "update"], "reading Debian's package lists", NETWORK)
    words = ["install", "--yes", "--download-only", "--no-install-recommends", *packages]
    run([*apt, *words], f"downloading {', '.join(packages)} for {architecture}", NETWORK)
    for package in sorted((work / "archives").glob("*.deb")):
        run(["dpkg", "-x", str(package), str(into)], f"unpacking {package.name}", NETWORK)


def _own_state(work: Path, architecture: str) -> list[str]:
    """Return the options that keep apt inside a folder."""
    for name in ("lists/partial", "archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",  # apt's own user can't write here
        "Dir::State": work,
        "Dir::State::Lists": work / "lists",
        "Dir::State::Status": work / "status",
        "Dir::Cache": work,
        "Dir::Cache::Archives": work / "archives",
    }
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def run(
    words: Sequence[str], what: str, cure: str, variables: Mapping[str, str] | None = None
) -> None:
    """Run a command quietly, with the environment variables that are given.

    Raises:
        TargetError: It fails; with the last line that it wrote.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise TargetError(f"{what} failed: {said[-1].strip()}", where=words[0], cure=cure)
