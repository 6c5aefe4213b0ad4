"""Sets the emulated environment up, once: qemu, an aarch64 Python, the wheels that planish needs.

    root/     Debian's Python for arm64 and the libraries that it needs
    site/     aarch64 wheels in the versions of constraints.txt
    host/     qemu, where the machine has none
    ready     what all that was made of; while it fits, setting up again does nothing

planish itself is not in it: an emulated Python imports the planish that the tests import.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from planish.ir.errors import TargetError

from .debian import NETWORK, run, unpack

PROJECT = Path(__file__).parents[2]
CONSTRAINTS = PROJECT / "constraints.txt"
EMULATOR = "qemu-aarch64-static"
# The C++ library is TVM's; all else that Python needs comes with it.
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
WHEELS = (
    "numpy",
    "safetensors",
    "ml_dtypes",
    "apache-tvm-ffi",
    "apache-tvm",
    "typing_extensions",
    # TVM's RPC server needs them.
    "cloudpickle",
    "psutil",
    "tornado",
)
# Systems whose wheels run on Debian's libc; pip takes each by name.
PLATFORMS = (
    *(f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)),
    "manylinux2014_aarch64",
)
# The compiler is 240 MB and runs nothing; with TVM_USE_RUNTIME_LIB=1 TVM does without it.
UNUSED = "tvm/lib/libtvm_compiler.so"


@dataclass(frozen=True)
class Environment:
    """An emulated environment that is set up.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    @property
    def root(self) -> Path:
        """What emulated programs find at "/", before this machine's own files."""
        return self.folder / "root"

    @property
    def site(self) -> Path:
        """The folder of installed wheels: `tvm`, `tvm_ffi` and others."""
        return self.folder / "site"

    @property
    def python(self) -> Path:
        """The aarch64 Python."""
        (found,) = sorted((self.root / "usr/bin").glob("python3.*[0-9]"))
        return found

    @property
    def emulator(self) -> Path:
        """qemu: the machine's, or the one that was unpacked."""
        found = shutil.which(EMULATOR)
        return Path(found) if found else self.folder / "host/usr/bin" / EMULATOR

    def command(self, cpu: str, *words: str | Path) -> list[str]:
        """Return how to start an aarch64 program.

        Args:
            cpu: The processor to be, as qemu names it: "cortex-a76".
            words: The program and its arguments.
        """
        return [str(self.emulator), "-cpu", cpu, "-L", str(self.root), *map(str, words)]

    def variables(self, packages: Path) -> dict[str, str]:
        """Return the environment variables for an emulated Python, or for what loads TVM.

        Args:
            packages: A folder with more packages: planish.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "LD_", "PYTEST"))
        }
        libraries = [self.site / "tvm_ffi/lib", self.site / "tvm/lib"]
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(map(str, (packages, self.site))),
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "TVM_USE_RUNTIME_LIB": "1",
        }


def default_folder() -> Path:
    """Return where the environment is: PLANISH_ARM, or build/arm of this tree."""
    return Path(os.environ.get("PLANISH_ARM") or PROJECT / "build" / "arm").absolute()


def set_up(
    folder: Path | None = None, say: Callable[[str], object] = lambda text: None
) -> Environment:
    """Return the environment, made first if it is missing or was made of something else.

    Args:
        folder: Where it is or shall be; `default_folder()` if not given.
        say: Called with what is being done.

    Raises:
        TargetError: Something can't be downloaded or unpacked; what was there before stays.
    """
    folder = folder or default_folder()
    environment = Environment(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the test processes come here together
        if not _is_ready(folder):
            _make(folder, say)
    return environment


def _is_ready(folder: Path) -> bool:
    stamp = folder / "ready"
    return stamp.is_file() and stamp.read_text() == _inputs()


def _inputs() -> str:
    """Return a digest of all that decides what the environment holds."""
    digest = hashlib.sha256()
    for path in (Path(__file__), Path(__file__).with_name("debian.py"), CONSTRAINTS):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _make(folder: Path, say: Callable[[str], object]) -> None:
    """Make the environment beside its place, then move it there."""
    new = Path(f"{folder}.new")
    shutil.rmtree(new, ignore_errors=True)
    work = new / "work"
    try:
        if shutil.which(EMULATOR) is None:
            say("downloading qemu")
            unpack(["qemu-user-static"], "amd64", new / "host", work / "host")
        say("downloading Debian's Python for arm64")
        unpack(PACKAGES, "arm64", new / "root", work / "root")
        say("downloading aarch64 wheels")
        _install_wheels(new)
        (new / "site" / UNUSED).unlink()
        say("trying it out")
        _try(Environment(new))
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(work)
    (new / "ready").write_text(_inputs())
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def _install_wheels(new: Path) -> None:
    version = Environment(new).python.name.removeprefix("python")
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    where = ["--target", str(new / "site"), "--python-version", version, *platforms]
    # Each is named here: pip can't resolve what wheels of another platform depend on.
    rules = ["--only-binary", ":all:", "--no-deps", "--no-compile", "-c", str(CONSTRAINTS)]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run([*pip, *rules, *where, *WHEELS], "downloading aarch64 wheels", NETWORK)


def _try(environment: Environment) -> None:
    """Import what artifacts need, so that a part that is missing is named here, once."""
    code = "import ctypes, lzma, zlib, numpy, safetensors, tvm_ffi"
    words = environment.command("max", environment.python, "-c", code)
    run(words, "the emulated Python", NETWORK, environment.variables(environment.site))


def require_compiler() -> str:
    """Return the cross compiler's name.

    Raises:
        TargetError: It isn't installed.
    """
    name = "aarch64-linux-gnu-g++"
    if shutil.which(name) is None:
        raise TargetError(
            f"there is no {name}", cure="install it (Debian: apt install g++-aarch64-linux-gnu)"
        )
    return name
