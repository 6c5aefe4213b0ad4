"""insert-teacher-hooks and remove-teacher-hooks: text, pairs, the frozen teacher, refusals."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from planish import capture
from planish.ir import Graph, Level, OptionError, PassError, PlanishError, verify
from planish.passes import (
    Context,
    InsertTeacherHooks,
    PruneChannels,
    RemoveTeacherHooks,
    Train,
)
from planish.passes.distillation.teacher_hooks import HOOKS, student_module
from planish.passes.fold_batch_norm import FoldBatchNorm
from planish.passes.insert_qdq import InsertQDQ

Golden = Callable[[str, str], None]


class Net(nn.Module):
    """Two stages, 8x8 and 4x4, of any width."""

    def __init__(self, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(self.conv(x))
        return self.fc(self.drop(F.adaptive_avg_pool2d(x, 1).flatten(1)))


@cache
def captured(width: int, classes: int) -> Graph:
    torch.manual_seed(width)
    return capture(Net(width, classes), (torch.zeros(1, 1, 8, 8),))


def net(width: int = 4, classes: int = 3) -> Graph:
    return captured(width, classes).copy()


def insert(student: Graph, teacher: Graph | str, **options: Any) -> Graph:
    InsertTeacherHooks(teacher=teacher, **options).run(student, Context())
    verify(student)
    return student


def data(batches: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    return [(torch.randn(4, 1, 8, 8), torch.randint(0, 3, (4,))) for _ in range(batches)]


def test_golden_insert(golden: Golden) -> None:
    graph = insert(net(2), net(4), features=1.0, attention=10.0)
    losses = "\n".join(map(str, graph.annotations[HOOKS]["losses"]))
    golden("insert_teacher_hooks", graph.text() + losses)


def test_outputs_stay_and_the_teacher_is_the_teacher() -> None:
    student, teacher = net(2), net(4)
    (x, _), *_ = data()
    before, wanted = student(x), teacher(x)
    insert(student, teacher, features=1.0)
    torch.testing.assert_close(student(x), before, rtol=0, atol=0)
    torch.testing.assert_close(student.module(x)[1], wanted, rtol=0, atol=0)


# The second student uses the names that hooks like.
@pytest.mark.parametrize("taken", [{}, {"stem.weight": "teacher.w", "conv.weight": "adapter.w"}])
def test_remove_restores_the_graph(taken: dict[str, str]) -> None:
    student = net(2)
    for old, new in taken.items():
        student.set_attribute(new, student.attribute(old))
        next(n for n in student.nodes if n.target == old).target = new
    student.prune_dead().infer()
    text, digest = student.text(), student.fingerprint()
    insert(student, net(4), features=1.0, attention=1.0)
    assert student.text() != text
    result = RemoveTeacherHooks().run(student, Context())
    verify(student)
    assert result.changed
    assert (student.text(), student.fingerprint()) == (text, digest)
    assert HOOKS not in student.annotations


def test_removing_twice_is_refused() -> None:
    with pytest.raises(PassError, match="no teacher hooks"):
        RemoveTeacherHooks().run(net(), Context())


def test_saved_graphs_keep_the_hooks(tmp_path: Path) -> None:
    graph = insert(net(2), net(4), features=1.0)
    graph.save(tmp_path / "hooks.planish")
    loaded = Graph.load(tmp_path / "hooks.planish")
    assert loaded.fingerprint() == graph.fingerprint()
    frozen = [n.name for n in loaded.train().nodes if n.meta.get("frozen")]
    assert frozen == [n.name for n in graph.nodes if n.meta.get("frozen")]
    modes = [n.args[5] for n in loaded.calls if "batch_norm" in n.name]
    assert modes == [True, False]


def test_the_teacher_is_frozen() -> None:
    teacher = net(4).train()
    graph = insert(net(2), teacher, features=1.0)
    own = {n: v.clone() for n, v in graph.attributes.items() if n.startswith("teacher.")}
    assert not any(value.requires_grad for value in own.values())
    (x, _), *_ = data()
    wanted = teacher.eval()(x)
    torch.testing.assert_close(graph.train().module(x)[1], wanted, rtol=0, atol=0)
    Train(epochs=2, learning_rate=0.1).run(graph, Context(data=data()))
    for name, value in own.items():
        assert torch.equal(graph.attribute(name), value), name
        assert graph.attribute(name).grad is None


def test_dropout_of_the_teacher_is_off() -> None:
    graph = insert(net(2), net(4), features=1.0).train()
    modes = {n.name: n.args[2] for n in graph.calls if "dropout" in n.name}
    assert modes == {"dropout": True, "teacher_dropout": False}


def test_taps_pair_by_origin_the_last_of_each_stage() -> None:
    student, teacher = net(2), net(4)
    result = InsertTeacherHooks(teacher=teacher, features=1.0).run(student, Context())
    assert result.notes["taps"] == ["relu", "relu_1"]
    assert result.notes["adapters"] == ["relu", "relu_1"]
    flat = student.outputs
    pairs = [i for i in student.annotations[HOOKS]["losses"] if i["kind"] == "features"]
    names = [(flat[i["student"]].name, flat[i["teacher"]].name) for i in pairs]
    assert names == [("adapter_relu", "teacher_relu"), ("adapter_relu_1", "teacher_relu_1")]
    assert student.attribute("adapter.relu.weight").shape == (4, 2, 1, 1)
    assert student.attribute("adapter.relu.weight").requires_grad


def test_equal_widths_need_no_adapter() -> None:
    result = InsertTeacherHooks(teacher=net(4), features=1.0).run(net(4), Context())
    assert result.notes["adapters"] == []


def test_attention_needs_no_adapter_and_shares_the_taps() -> None:
    graph = insert(net(2), net(4), attention=1.0, soft_labels=0.0)
    assert not [name for name in graph.attributes if name.startswith("adapter")]
    # The teacher's head serves nobody, so it isn't there.
    assert "teacher.fc.weight" not in graph.attributes


def test_named_taps_are_modules_and_may_have_two_names() -> None:
    graph = net(2)
    taps = ("stem", "conv=relu_1", "fc")
    result = InsertTeacherHooks(net(4), features=1.0, taps=taps).run(graph, Context())
    verify(graph)
    assert result.notes == {"taps": ["stem", "conv", "fc"], "adapters": ["stem", "conv"]}


def test_taps_of_one_name_have_an_adapter_each() -> None:
    graph = insert(net(2), net(4), features=1.0, taps=("conv", "conv=relu_1"))
    names = [name for name in graph.attributes if name.startswith("adapter")]
    assert len(names) == 4


def test_a_linear_layer_adapts_what_is_no_image() -> None:
    graph = insert(net(2), net(4), features=1.0, taps=("flatten",))
    assert graph.attribute("adapter.flatten.weight").shape == (8, 4)
    assert next(n for n in graph.calls if n.name == "adapter_flatten").target is (
        torch.ops.aten.linear.default
    )


def test_adapters_follow_the_seed() -> None:
    def weight(seed: int) -> torch.Tensor:
        graph = net(2)
        InsertTeacherHooks(teacher=net(4), features=1.0).run(graph, Context(seed=seed))
        return graph.attribute("adapter.relu.weight")

    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))


def test_a_stage_without_counterpart_is_refused() -> None:
    teacher = capture(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)),
        (torch.zeros(1, 1, 8, 8),),
    )
    student = net(2)
    next(n for n in student.calls if n.name == "relu").meta["origin"] = teacher.origin(
        next(n for n in teacher.calls if n.name == "relu")
    )
    result = InsertTeacherHooks(teacher=teacher, attention=1.0).run(student, Context())
    assert [item.node for item in result.refused] == ["relu_1"]
    assert result.refused[0].reason == "no operator of size [4, 4] has a counterpart in the teacher"


def test_quantized_students_learn_what_is_deployed() -> None:
    graph, context = FoldBatchNorm().run(net(4), Context(data=data())).graph, Context(data=data())
    graph = InsertQDQ().run(graph, context).graph
    text = graph.text()
    insert(graph, net(4), features=1.0)
    assert graph.level == Level.QUANTIZED
    tapped = [n.name for n in graph.outputs[2:] if not n.name.startswith("teacher")]
    assert tapped == ["relu_q", "relu_1_q"]
    Train(learning_rate=0.01).run(graph, context)
    RemoveTeacherHooks().run(graph, context)
    verify(graph)
    assert graph.text() == text


def test_the_student_alone_shares_tensors() -> None:
    graph = insert(net(2), net(4), features=1.0).train()
    alone = student_module(graph)
    assert not any(name.startswith("teacher") for name, _ in alone.named_buffers())
    assert {id(p) for p in alone.parameters()} < {id(p) for p in graph.module.parameters()}
    (x, _), *_ = data()
    (logits,) = alone(x)
    torch.testing.assert_close(logits, graph.eval()(x), rtol=0, atol=0)


def test_teacher_by_path_and_by_input(tmp_path: Path) -> None:
    teacher = net(4)
    teacher.save(tmp_path / "teacher.planish")
    by_path, by_input, by_graph = net(2), net(2), net(2)
    insert(by_path, str(tmp_path / "teacher.planish"))
    InsertTeacherHooks().run(by_input, Context(original=teacher))
    insert(by_graph, teacher)
    assert by_path.fingerprint() == by_input.fingerprint() == by_graph.fingerprint()


def test_a_graph_may_teach_itself() -> None:
    graph = net(2)
    InsertTeacherHooks(teacher=graph).run(graph, Context())
    verify(graph)
    assert len(graph.outputs) == 2


def test_options_round_trip() -> None:
    item = InsertTeacherHooks("teacher.planish", attention=3.0, taps=("conv",), temperature=2.0)
    assert item.options() == {
        "teacher": "teacher.planish",
        "attention": 3.0,
        "taps": ["conv"],
        "temperature": 2.0,
    }
    assert InsertTeacherHooks.from_options(item.options()) == item
    assert InsertTeacherHooks.from_options({}) == InsertTeacherHooks()


def test_a_teacher_in_memory_is_recorded_but_no_recipe() -> None:
    teacher = net(4)
    options = InsertTeacherHooks(teacher).options()
    assert options == {"teacher": f"graph:{teacher.fingerprint()[:12]}"}
    with pytest.raises(OptionError, match=r"Graph\.save"):
        InsertTeacherHooks.from_options(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"soft_labels": -1.0}, "must be 0 or more"),
        ({"soft_labels": 0.0, "hard_labels": 0.0}, "not all 0"),
        ({"soft_labels": float("nan")}, "must be 0 or more"),
        ({"temperature": 0.0}, "must be above 0"),
        ({"taps": ("conv",)}, "neither features nor attention"),
        ({"temprature": 2.0}, "did you mean 'temperature'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        InsertTeacherHooks.from_options(options)


def raw() -> Graph:
    return capture(Net(4), (torch.zeros(1, 1, 8, 8),), canonicalize=False)


REFUSALS: list[tuple[Callable[[], Graph], dict[str, Any], type[PlanishError], str]] = [
    (raw, {}, PassError, "the teacher is on the captured level"),
    (lambda: insert(net(4), net(4)), {}, PassError, "teacher hooks of its own"),
    (lambda: net(4, classes=5), {}, PassError, "soft labels need outputs"),
    (lambda: net(4), {"features": 1.0, "taps": ("convv",)}, OptionError, "did you mean 'conv'"),
    (lambda: net(4), {"features": 1.0, "taps": ("conv=x.y",)}, OptionError, "the teacher has no"),
    (lambda: net(4), {"features": 1.0, "taps": ("stem=conv",)}, PassError, "the student's 'stem'"),
    (lambda: net(4), {"attention": 1.0, "taps": ("fc",)}, PassError, "attention needs"),
]


@pytest.mark.parametrize(("teacher", "options", "error", "message"), REFUSALS)
def test_refusals(
    teacher: Callable[[], Graph], options: dict[str, Any], error: type[PlanishError], message: str
) -> None:
    student = net(2)
    with pytest.raises(error, match=message):
        InsertTeacherHooks(teacher=teacher(), **options).run(student, Context())
    assert student.fingerprint() == net(2).fingerprint()


def test_a_teacher_of_other_inputs_is_refused() -> None:
    teacher = capture(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (torch.zeros(1, 1, 4, 4),))
    with pytest.raises(PassError, match=r"the teacher takes .*4, 4.*, the student .*8, 8"):
        InsertTeacherHooks(teacher=teacher).run(net(2), Context())


def test_no_pair_at_all_is_refused() -> None:
    teacher = capture(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (torch.zeros(1, 1, 8, 8),))
    with pytest.raises(PassError, match="no activation of the student has a counterpart"):
        InsertTeacherHooks(teacher=teacher, features=1.0).run(net(2), Context())


def test_hooks_twice_are_refused() -> None:
    with pytest.raises(PassError, match="already has teacher hooks"):
        InsertTeacherHooks(teacher=net(4)).run(insert(net(2), net(4)), Context())


def test_input_without_a_pipeline_is_refused() -> None:
    with pytest.raises(PassError, match="no pipeline said"):
        InsertTeacherHooks().run(net(2), Context())


def test_a_file_that_is_no_teacher(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk")
    for name, message in (("junk", "not a planish graph"), ("none", "can't read")):
        with pytest.raises(PlanishError, match=message):
            InsertTeacherHooks(teacher=tmp_path / name).run(net(2), Context())


@pytest.mark.parametrize("seed", range(5))
def test_any_network_teaches_and_is_restored(
    seed: int, random_model: Callable[[int], nn.Module]
) -> None:
    model, x = random_model(seed), torch.randn(4, 3, 9, 8)
    graph = capture(model, (x,))
    text = graph.text()
    insert(graph, graph.copy(), features=1.0, attention=1.0)
    student, teacher, *_ = graph.module(x)
    torch.testing.assert_close(student, teacher, rtol=0, atol=0)
    torch.testing.assert_close(student, model(x))
    Train(learning_rate=1e-3).run(graph, Context(data=[(x, torch.arange(4))]))
    RemoveTeacherHooks().run(graph, Context())
    verify(graph)
    assert graph.text() == text


def test_pruned_students_keep_their_names() -> None:
    teacher = net(8)
    student = PruneChannels(macs=0.5).run(teacher.copy(), Context()).graph
    result = InsertTeacherHooks(teacher, features=1.0).run(student, Context())
    verify(student)
    assert result.notes == {"taps": ["relu", "relu_1"], "adapters": ["relu", "relu_1"]}
