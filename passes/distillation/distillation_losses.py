"""The losses that pull a student towards its teacher: pure functions of tensors.

Each is a mean over the samples of the batch, so that its weight doesn't depend on the batch size.
The teacher's tensors carry no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def soft_label_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Divergence of the student's softened class probabilities from the teacher's.

    `T^2 * mean over samples of sum over classes p_t * (log p_t - log p_s)`, where
    `p = softmax(logits / T)`. The factor T^2 keeps the gradients' size when T changes.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2
    and equation 1. The cross entropy given there differs by the teacher's entropy, a constant.

    Args:
        student: Logits [N, classes] or, for dense prediction, [N, classes, ...].
        teacher: Logits, shaped the same.
        temperature: T, above zero.

    Returns:
        A scalar, zero where the two agree.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
    return temperature**2 * divergence.mean()


def feature_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Half the mean squared difference of two activations.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets" (ICLR 2015), equation 3, with the
    mean over all entries in place of the sum, so that one weight serves layers of any size. The
    regressor of the paper is the adapter that `InsertTeacherHooks` adds where widths differ.

    Args:
        student: Activation of any shape, after its adapter.
        teacher: Activation, shaped the same.

    Returns:
        A scalar, zero where the two agree.
    """
    return 0.5 * F.mse_loss(student, teacher)


def attention_map(activation: torch.Tensor) -> torch.Tensor:
    """Where an activation is large: squares summed over channels, of unit length a sample.

    Source: Zagoruyko, Komodakis, "Paying More Attention to Attention" (ICLR 2017), section 3.1:
    F_sum^p with p = 2, flattened and divided by its l2 norm.

    Args:
        activation: [N, channels, H, W].

    Returns:
        [N, H * W].
    """
    return F.normalize(activation.square().sum(dim=1).flatten(1), dim=1)


def attention_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Half the distance between two attention maps, a mean over samples.

    Source: Zagoruyko, Komodakis (ICLR 2017), equation 2 for one pair of layers. The numbers of
    channels may differ: attention needs no adapter.

    Args:
        student: [N, channels, H, W].
        teacher: [N, other channels, H, W].

    Returns:
        A scalar, zero where the two look at the same places.
    """
    difference = attention_map(student) - attention_map(teacher)
    return 0.5 * torch.linalg.vector_norm(difference, dim=1).mean()
