"""The root's folders form one package: check its wiring, not its behaviour.

Inside a folder imports are relative (from a sub-package with two dots), across folders absolute.
Both other ways break: three dots leave the folder, which stands elsewhere once it is installed;
and a type checker takes the file that `planish.ir` leads to and the file at the root for two
modules, so that one class, imported both ways in a folder, is two types.
"""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "ir": "planish.ir",
    "passes": "planish.passes",
    "backends": "planish.backends",
    "examples": "planish.examples",
    "compiler": "planish",
}
# What each folder may import of planish, beside itself: "planish" is all of compiler/.
ALLOWED = {
    "ir": (),
    "passes": ("ir",),
    "backends": ("ir",),
    "examples": ("ir", "passes", "backends", "compiler"),
    "compiler": ("ir", "passes", "backends", "examples"),
}
LONGEST = 400
# Files that know each other, as a public method of one hands its object to the other.
TOGETHER = (
    {"ir/fingerprint.py", "ir/graph.py", "ir/printer.py", "ir/serialize.py"},
    {"passes/train.py", "passes/training/training_loop.py"},
    {"compiler/report.py", "compiler/report_html.py"},
)
FILES = [p for folder in PACKAGES for p in sorted((ROOT / folder).rglob("*.py"))]
ELSEWHERE = [p for folder in ("tests", "benchmarks") for p in sorted((ROOT / folder).rglob("*.py"))]
# Absolute paths that name one machine's folders; /tmp and the like in a test's input are no reason.
MACHINE_PATH = re.compile(r"(?<![\w./])/(?:home|root|work|farm|Users)/\w|[A-Z]:\\\\Users")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    """Return the dotted name under which a file of the five folders is installed."""
    folder, *below = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([PACKAGES[folder], *(part for part in below if part != "__init__")])


def folder_of(module: str) -> str:
    """Return the root folder that holds the module `planish...`."""
    part = module.split(".")[1] if "." in module else ""
    return part if part in PACKAGES and part != "compiler" else "compiler"


def is_demo(part: str) -> bool:
    return part == "demo" or part.startswith(("demo.", "demo_"))


def imports(path: Path) -> list[tuple[int, str]]:
    """Return (relative level, module) for each import; `from planish import x` as planish.x."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "planish":
            found += [(0, f"planish.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def broken_imports(path: Path) -> list[str]:
    """Return one line for each import of a file that breaks the rules of the house."""
    folder, *below = path.relative_to(ROOT).parts
    lines: list[str] = []
    for level, module in imports(path):
        head = module.split(".")[0]
        other = folder_of(module)
        if level > len(below):
            lines.append(f"{'.' * level}{module}: absolute (planish.*) across folders")
        elif level == 0 and head in PACKAGES:
            lines.append(f"{module}: import planish.{module}, not the folder")
        elif level or head != "planish":
            continue
        elif other == folder and module != "planish":
            lines.append(f"{module}: relative inside a folder")
        elif other != folder and other not in ALLOWED[folder]:
            lines.append(f"{module}: {folder}/ must not import {other}/")
        elif other == "examples" != folder and not any(map(is_demo, below)):
            lines.append(f"{module}: only the demo imports examples/")
    return lines


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports(path: Path) -> None:
    assert broken_imports(path) == []


def test_import_rules_bite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "backends" / "targets" / "wrong.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import planish.passes\n"
        "from planish import capture\n"
        "from planish.ir import Graph\n"
        "from ...ir import Graph\n"
        "from ir import Graph\n"
        "from planish.backends.target import Target\n"
        "from ..target import Target\n"
        "from .native import native\n"
    )
    assert broken_imports(path) == [
        "planish.passes: backends/ must not import passes/",
        "planish.capture: backends/ must not import compiler/",
        "...ir: absolute (planish.*) across folders",
        "ir: import planish.ir, not the folder",
        "planish.backends.target: relative inside a folder",
    ]


def imported_files(path: Path) -> set[Path]:
    """Return the files of its folder that a file imports, wherever in it; packages apart."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            below = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            found.add(below.with_suffix(".py"))
            found |= {below / f"{alias.name}.py" for alias in node.names}
    return {other for other in found if other.is_file()}


def circle(paths: list[Path], together: Sequence[set[str]] = ()) -> list[str]:
    """Return files that import each other in a circle, or nothing; some count as one file."""
    one = {name: min(names) for names in together for name in names}
    arrows: dict[str, set[str]] = {}
    for path in paths:
        name = one.get(name_of(path), name_of(path))
        others = {one.get(name_of(other), name_of(other)) for other in imported_files(path)}
        arrows.setdefault(name, set()).update(others - {name})
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_form_no_circles() -> None:
    modules = [path for path in FILES if path.name != "__init__.py"]
    assert circle(modules, TOGETHER) == []
    for names in TOGETHER:
        assert circle([ROOT / name for name in names]), f"no circle any more: {names}"


def test_circles_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    texts = {"a": "from .b import x", "b": "def f():\n    from . import c", "c": "from .a import y"}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    paths = sorted(tmp_path.iterdir())
    assert sorted(set(circle(paths))) == ["a.py", "b.py", "c.py"]
    assert circle(paths, [{"a.py", "b.py", "c.py"}]) == []
    assert circle(paths[:2]) == []


def test_every_folder_with_modules_is_packaged() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {module_of(p.with_name("__init__.py")) for p in FILES}
    assert found == set(config["packages"])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_installed_copy_is_current(path: Path) -> None:
    spec = importlib.util.find_spec(module_of(path))
    assert spec is not None, f"reinstall (make does): {module_of(path)} is not visible"
    assert spec.origin is not None, f"{module_of(path)}: a package needs its __init__.py"
    assert Path(spec.origin).read_bytes() == path.read_bytes(), "reinstall: the copy is stale"


@pytest.mark.parametrize("path", FILES + ELSEWHERE, ids=name_of)
def test_file_is_short_and_names_no_machine(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGEST, "would two files be easier to live in?"
    marked = [f"{path}:{n}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
    assert marked == []


@pytest.mark.parametrize("package", ["planish", "planish.ir", "planish.passes", "planish.backends"])
def test_package_imports_nothing_heavy(package: str) -> None:
    heavy = "{'torch', 'tvm', 'onnx', 'onnxruntime', 'matplotlib', 'sklearn'}"
    code = f"import sys, {package}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
