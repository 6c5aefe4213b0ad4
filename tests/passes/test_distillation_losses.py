"""Each loss against its formula written out sample by sample in Python."""

import math

import pytest
import torch

from planish.passes.distillation.distillation_losses import (
    attention_loss,
    attention_map,
    feature_loss,
    soft_label_loss,
)


def softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_labels_are_the_divergence_of_softened_classes(temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    expected = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        pairs = zip(softmax(s, temperature), softmax(t, temperature), strict=True)
        expected += sum(pt * math.log(pt / ps) for ps, pt in pairs)
    found = soft_label_loss(student, teacher, temperature)
    assert float(found) == pytest.approx(temperature**2 * expected / 5, rel=1e-5)


def test_soft_labels_of_dense_predictions_are_a_mean_over_places() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    flat = [value.permute(0, 2, 3, 1).reshape(-1, 3) for value in (student, teacher)]
    assert torch.allclose(
        soft_label_loss(student, teacher, 2.0), soft_label_loss(flat[0], flat[1], 2.0)
    )


def test_soft_label_gradient_is_the_difference_of_probabilities() -> None:
    """Hinton et al. 2015, equation 2, times T^2."""
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6)
    soft_label_loss(student, teacher, 3.0).backward()
    difference = torch.softmax(student.detach() / 3, 1) - torch.softmax(teacher / 3, 1)
    assert student.grad is not None
    torch.testing.assert_close(student.grad, 3.0 * difference / 4)


def test_features_are_half_the_mean_square() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    entries = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    squares = [(s - t) ** 2 for s, t in entries]
    expected = sum(squares) / len(squares) / 2
    assert float(feature_loss(student, teacher)) == pytest.approx(expected, rel=1e-5)


def attention_by_hand(activation: torch.Tensor) -> list[float]:
    channels, height, width = activation.shape
    sums = [
        sum(float(activation[c, i, j]) ** 2 for c in range(channels))
        for i in range(height)
        for j in range(width)
    ]
    length = math.sqrt(sum(value**2 for value in sums))
    return [value / length for value in sums]


def test_attention_is_half_the_distance_of_unit_maps() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 2, 4, 5), torch.randn(3, 7, 4, 5)
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        maps = zip(attention_by_hand(s), attention_by_hand(t), strict=True)
        expected += math.sqrt(sum((a - b) ** 2 for a, b in maps)) / 2
    assert float(attention_loss(student, teacher)) == pytest.approx(expected / 3, rel=1e-5)


def test_attention_sees_where_not_how_much() -> None:
    activation = torch.rand(2, 4, 3, 3)
    torch.testing.assert_close(attention_map(activation), attention_map(5 * activation))


def test_agreement_costs_nothing() -> None:
    value = torch.randn(3, 5, 2, 2)
    losses = (soft_label_loss(value, value, 2.0), feature_loss(value, value))
    assert [float(v) for v in losses] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert float(attention_loss(value, value)) == 0.0


def test_agreeing_attention_has_a_finite_gradient() -> None:
    student = torch.rand(2, 3, 4, 4, requires_grad=True)
    attention_loss(student, student.detach()).backward()
    assert student.grad is not None
    assert bool(torch.isfinite(student.grad).all())
