from __future__ import annotations

import pytest
import torch
from avalanche.training.regularization import LearningWithoutForgetting

from cl.ops.distillation import distillation, logit_distance


def logits(seed: int, classes: int = 5) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(7, classes, generator=random)).requires_grad_()


def test_value_and_gradient_are_avalanches() -> None:
    student, teacher = logits(0), logits(1).detach()
    reference = LearningWithoutForgetting(temperature=2)
    expected = reference._distillation_loss(student, teacher, {0, 1, 2})
    value = distillation(student[:, :3], teacher[:, :3], 2.0)
    torch.testing.assert_close(value, expected)
    (ours,) = torch.autograd.grad(value, student)
    (theirs,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(ours, theirs)


def test_nothing_to_do_when_the_answers_agree_up_to_a_constant() -> None:
    """Adding a number to all old logits of an image changes nothing."""
    student = logits(0)
    value = distillation(student, student.detach() + torch.arange(7.0)[:, None], 2.0)
    (gradient,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(value, torch.zeros(()), rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, torch.zeros_like(student), rtol=0, atol=1e-7)


def test_a_constant_added_to_an_image_s_old_logits_changes_nothing() -> None:
    student, teacher = logits(0), logits(1).detach()
    values = [
        distillation(student, teacher + shift, 2.0) for shift in (0.0, torch.arange(7.0)[:, None])
    ]
    assert values[0] > 0.1, "they disagree"
    torch.testing.assert_close(values[1], values[0])
    gradients = [torch.autograd.grad(value, student)[0] for value in values]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_improbable_classes_do_not_underflow() -> None:
    student = torch.tensor([[0.0, 300.0]], requires_grad=True)
    value = distillation(student, torch.tensor([[300.0, 0.0]]), 1.0)
    assert value.item() == 300.0
    value.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_logit_distance_takes_classes_of_later_for_zero() -> None:
    now, stored = torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([[0.0, 0], [7, 5]])
    value = logit_distance(now, stored)
    assert value.item() == pytest.approx(((1 + 4 + 9) / 3 + (9 + 0 + 36) / 3) / 2)
    whole = torch.tensor([[0.0, 0, 0], [7, 5, 0]])
    torch.testing.assert_close(value, torch.nn.functional.mse_loss(now, whole))
