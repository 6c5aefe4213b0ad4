"""Fixtures and options that all tests share."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from planish.backends.cuda.driver import compute_capability

if TYPE_CHECKING:
    from planish.datasets import Dataset
    from tests.arm import Emulated

GOLDEN = Path(__file__).parent / "golden"
REFRESH = "--refresh-golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        REFRESH,
        action="store_true",
        help="write the golden texts anew from what the code makes now",
    )


@cache
def _cpu_flags() -> frozenset[str]:
    """Return this processor's features as Linux names them, such as "avx2"; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    flags = (line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(flags, "").split())


@cache
def _images() -> Dataset:
    from planish.datasets import fashion_mnist

    return fashion_mnist(mirrors=())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine can't run, with the reason."""
    for mark in item.iter_markers("isa"):
        missing = sorted(set(mark.args) - _cpu_flags())
        if missing:
            pytest.skip(f"this processor has no {', '.join(missing)}")
    if item.get_closest_marker("cuda") and compute_capability() is None:
        pytest.skip("there is no NVIDIA GPU here, or no driver for it")
    if item.get_closest_marker("needs_torch_free_env") and not os.environ.get(
        "PLANISH_TORCHFREE_PYTHON"
    ):
        pytest.skip("PLANISH_TORCHFREE_PYTHON is not set; `make test` sets it")
    if item.get_closest_marker("needs_data") and _images().name != "fashion-mnist":
        pytest.skip("Fashion-MNIST is not on this machine")


@pytest.fixture(scope="session")
def fashion() -> Dataset:
    """Fashion-MNIST, read once; mark the test `needs_data`."""
    return _images()


@pytest.fixture
def torchfree_python() -> Path:
    """A Python that has planish and what an artifact needs, but neither torch nor onnx."""
    return Path(os.environ["PLANISH_TORCHFREE_PYTHON"])


@pytest.fixture(scope="session")
def emulated() -> Iterator[Callable[[str], Emulated]]:
    """`emulated("cortex-a76")` is an ARM processor that runs artifacts; mark the test `arm`."""
    from planish.ir.errors import TargetError
    from tests.arm import Emulated, set_up

    processors: dict[str, Emulated] = {}

    def processor(cpu: str) -> Emulated:
        if cpu not in processors:
            try:
                processors[cpu] = Emulated(set_up(), cpu)
            except TargetError as error:
                pytest.fail(str(error), pytrace=False)
        return processors[cpu]

    yield processor
    for each in processors.values():
        each.close()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares `text` with tests/golden/<name>.txt.

    A golden text shows what the code is expected to make; read the difference before you
    refresh it.
    """
    refresh = bool(request.config.getoption(REFRESH))

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        text = text.rstrip("\n") + "\n"
        if refresh:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        expected = path.read_text() if path.is_file() else ""
        if text == expected:
            return
        lines = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), "expected", "got", lineterm=""
        )
        cure = f"to accept it: pytest '{request.node.nodeid}' {REFRESH}"
        pytest.fail("\n".join([f"tests/golden/{path.name}", *lines, cure]), pytrace=False)

    return check
