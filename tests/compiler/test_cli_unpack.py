"""`planish unpack`: files, what it prints, and mistakes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import planish
from planish import Graph
from planish.cli.app import app

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captured: Graph) -> Call:
    """`call("unpack", ...)` runs a command where model.planish is."""
    monkeypatch.chdir(tmp_path)
    planish.compile(captured, ["x86-64-v3", "x86-avx512vnni"]).save("model.planish")

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return run


def test_unpack(call: Call) -> None:
    done = call("unpack", "model.planish", "--target", "x86-64-v3", "-o", "out")
    assert done.exit_code == 0, done.output
    assert "wrote out for x86-64-v3" in done.stderr
    done = call("unpack", "model.planish", "--target", "x86-64-v3", "-o", "out", "--json")
    told = json.loads(done.stdout)
    assert (told["output"], told["target"]) == ("out", "x86-64-v3")
    found = {path.name: path.stat().st_size for path in Path("out").iterdir()}
    assert told["bytes"] == found
    assert sorted(found) == ["interface.txt", "library.so", "parameters.bin"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.planish", "-o", "out"], "several targets"),
        (["model.planish", "-o", "out", "--target", "armv8"], "no code for target 'armv8'"),
        (["none.planish", "-o", "out"], "can't read the artifact"),
        (["model.planish", "-o", "", "--target", "x86-64-v3"], "folder to write to is empty"),
        (["model.planish", "-o", "model.planish", "--target", "x86-64-v3"], "can't write the file"),
    ],
)
def test_mistakes(call: Call, words: list[str], message: str) -> None:
    result = call("unpack", *words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert message in line
    assert not Path("out").exists()
