"""The exact Fisher information against closed forms and a loop over single images."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl.models import nano
from cl.ops.fisher import diagonal_fisher


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    return -F.cross_entropy(logits, labels)


def loop(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """One backward pass per image."""
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}
    for image, label in zip(images, labels, strict=True):
        model.zero_grad()
        log_likelihood(model(image[None]), label[None]).backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.grad is not None:
                total[name] += parameter.grad.square() / len(images)
    return total


class TwoLogits(nn.Module):
    """Logits (0, w·x): the logistic model."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), (x * self.w).sum(1)], dim=1)


def test_logistic_model_at_zero_is_a_quarter() -> None:
    """Gradients of −½ and +½: the mean of their squares is ¼, the square of their mean is 0."""
    images, labels = torch.ones(2, 1), torch.tensor([0, 1])
    fisher = diagonal_fisher(TwoLogits(), [(images, labels)], log_likelihood)
    assert fisher["w"].item() == pytest.approx(0.25)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_vision_transformer_equals_the_loop_whatever_the_batch(batch: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model(nano.NANO_NAME, num_classes=3, img_size=8).eval()
    model.cls_token.requires_grad_(False)
    images, labels = torch.randn(7, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    parts = list(zip(images.split(batch), labels.split(batch), strict=True))
    fisher = diagonal_fisher(model, parts, log_likelihood, numbers=4_000_000)
    expected = loop(model, images, labels)
    assert fisher.keys() == expected.keys()
    for name in expected:
        scale = float(expected[name].max())
        torch.testing.assert_close(fisher[name], expected[name], rtol=1e-4, atol=1e-5 * scale)
