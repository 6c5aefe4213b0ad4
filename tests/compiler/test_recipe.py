"""Recipes: the same pipeline as TOML and as Python."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import planish
from planish import Pipeline, passes
from planish.ir import OptionError, PipelineError
from planish.passes import Pass
from planish.recipe import _toml

text = st.text(max_size=12)
names = st.lists(text, max_size=3).map(tuple)
share = st.floats(0.01, 0.99)
OPTIONS: dict[type[Pass], dict[str, st.SearchStrategy[Any]]] = {
    passes.Canonicalize: {},
    passes.FoldBatchNorm: {},
    passes.PruneChannels: {
        "macs": share,
        "importance": st.sampled_from(["l1", "l2", "bn-scale", "taylor"]),
        "ranking": st.sampled_from(["global", "group"]),
        "multiple": st.none() | st.integers(1, 64),
        "minimum": st.integers(1, 8),
        "protect": names,
    },
    passes.InsertTeacherHooks: {
        "soft_labels": share,
        "temperature": st.floats(0.1, 20),
        "features": share,
        "taps": names,
    },
    passes.Train: {
        "epochs": st.integers(1, 99),
        "optimizer": st.sampled_from(["sgd", "adam"]),
        "learning_rate": st.floats(1e-9, 10),
        "weight_decay": st.floats(0, 1),
        "steps": st.none() | st.integers(1, 10**12),
        "checkpoint": st.none() | text.filter(bool),
    },
    passes.RemoveTeacherHooks: {},
    passes.InsertQDQ: {
        "observer": st.sampled_from(["min-max", "percentile", "mse"]),
        "per_channel": st.booleans(),
        "batches": st.integers(1, 100),
        "skip": names,
    },
    passes.LowerToInteger: {},
}


@st.composite
def instances(draw: st.DrawFn, kind: type[Pass]) -> Pass:
    """Draw a pass of one kind with valid options."""
    required = {"macs"}
    strategies = {
        name: each if name in required else st.just(_Left) | each
        for name, each in OPTIONS[kind].items()
    }
    drawn = {name: draw(each) for name, each in strategies.items()}
    if "features" in OPTIONS[kind] and drawn["taps"] is not _Left:
        drawn["features"] = 0.5  # taps belong to features or attention
    return kind(**{name: value for name, value in drawn.items() if value is not _Left})


_Left = object()


def test_every_registered_pass_is_covered() -> None:
    from planish.passes.registry import pass_class, pass_names

    assert {pass_class(name) for name in pass_names()} == set(OPTIONS)


@pytest.mark.parametrize("kind", OPTIONS, ids=lambda kind: kind.name)
@given(st.data())
def test_round_trip(kind: type[Pass], data: st.DataObject) -> None:
    pipeline = Pipeline(
        [data.draw(instances(kind))],
        verify=data.draw(st.booleans()),
        check_numerics=data.draw(st.booleans()),
        dump=data.draw(st.none() | text),
        stop_after=data.draw(st.sampled_from([None, 1, kind.name])),
    )
    assert Pipeline.from_toml(pipeline.to_toml()) == pipeline
    namespace = {"planish": planish, "passes": passes}
    assert eval(pipeline.to_python(), namespace) == pipeline


plain = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_toml_values(value: Any) -> None:
    import tomllib

    assert tomllib.loads(f"x = {_toml(value, 'test')}\n")["x"] == value


def test_a_whole_recipe() -> None:
    pipeline = Pipeline(
        [passes.PruneChannels(macs=0.5, protect=("stem", "head.*")), passes.FoldBatchNorm()],
        check_numerics=True,
    )
    assert pipeline.to_toml() == (
        "check_numerics = true\n\n"
        '[[pass]]\nname = "prune-channels"\nmacs = 0.5\nprotect = ["stem", "head.*"]\n\n'
        '[[pass]]\nname = "fold-batch-norm"\n'
    )
    assert str(pipeline) == (
        "planish.Pipeline(\n    [\n"
        "        passes.PruneChannels(macs=0.5, protect=('stem', 'head.*')),\n"
        "        passes.FoldBatchNorm(),\n    ],\n    check_numerics=True,\n)"
    )


def test_from_a_file(save: Callable[[str, str], Path]) -> None:
    path = save("recipe.toml", '[[pass]]\nname = "fold-batch-norm"\n')
    assert Pipeline.from_toml(path) == Pipeline([passes.FoldBatchNorm()])


def test_inline_passes() -> None:
    assert Pipeline.from_toml('pass = [{name = "fold-batch-norm"}]').passes


def test_a_graph_is_no_recipe(graph: planish.Graph) -> None:
    pipeline = Pipeline([passes.InsertTeacherHooks(teacher=graph)])
    with pytest.raises(OptionError, match="a Graph can't be written in a recipe"):
        pipeline.to_toml()


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        (
            '\n[[pass]]\nname = "fold-batch-norms"\n',
            ["line 2, pass 1", "unknown pass", "did you mean 'fold-batch-norm'"],
        ),
        (
            '[[pass]]\nname = "insert-qdq"\nobsever = "mse"\n',
            ["line 1, pass 1", "unknown option 'obsever'", "did you mean 'observer'"],
        ),
        (
            '[[pass]]\nname = "canonicalize"\n[[pass]]\nname = "prune-channels"\nmacs = -1.0\n',
            ["line 3, pass 2"],
        ),
        ("[[pass]]\nmacs = 0.5\n", ["a pass needs a name"]),
        ("verify = true\n", ["the recipe has no [[pass]]"]),
        ("pass = 3\n", ["the recipe has no [[pass]]"]),
        ("verfy = true\n", ["unknown pipeline option 'verfy'", "did you mean 'verify'"]),
        ('verify = 1\n[[pass]]\nname = "train"\n', ["verify must be a bool, not 1"]),
        ("[[pass]\n", ["not TOML"]),
    ],
)
def test_bad_recipes(save: Callable[[str, str], Path], recipe: str, parts: list[str]) -> None:
    path = save("bad.toml", recipe)
    with pytest.raises(OptionError) as caught:
        Pipeline.from_toml(path)
    assert str(path) in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_an_impossible_order_names_the_file(save: Callable[[str, str], Path]) -> None:
    steps = ("insert-qdq", 'prune-channels"\nmacs = 0.5\nimportance = "l1')
    path = save("order.toml", "".join(f'[[pass]]\nname = "{step}"\n' for step in steps))
    with pytest.raises(PipelineError, match=r"must stand before insert-qdq; at .*order\.toml"):
        Pipeline.from_toml(path)


def test_no_file() -> None:
    with pytest.raises(OptionError, match=r"no such recipe; at nowhere\.toml"):
        Pipeline.from_toml("nowhere.toml")


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionError, match="the recipe is not text"):
        Pipeline.from_toml(tmp_path / "binary.toml")


def test_options_are_fields() -> None:
    for kind, options in OPTIONS.items():
        assert options.keys() <= {field.name for field in dataclasses.fields(kind)}
