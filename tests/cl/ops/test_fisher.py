"""The exact Fisher information against closed forms and a loop over single images."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from avalanche.training.plugins import EWCPlugin
from torch import Tensor, nn
from torch.nn import functional as F

from cl.models import nano
from cl.ops.fisher import batch_fisher, diagonal_fisher, fisher_information, true_fisher


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
    model = timm.create_model(nano.NANO_NAME, num_classes=3, img_size=8).eval().double()
    model.cls_token.requires_grad_(False)
    images, labels = torch.randn(7, 3, 8, 8).double(), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    parts = list(zip(images.split(batch), labels.split(batch), strict=True))
    fisher = diagonal_fisher(model, parts, log_likelihood, numbers=4_000_000)
    expected = loop(model, images, labels)
    assert fisher.keys() == expected.keys()
    for name in expected:
        scale = float(expected[name].max())
        torch.testing.assert_close(fisher[name], expected[name], rtol=1e-6, atol=1e-9 * scale)


def small() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    return model, torch.randn(10, 4), torch.arange(10) % 3


def avalanche(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int
) -> dict[str, Tensor]:
    dataset: Any = [(x, y, 0) for x, y in zip(images, labels, strict=True)]
    found = EWCPlugin(1.0).compute_importances(
        model, F.cross_entropy, torch.optim.SGD(model.parameters()), dataset, "cpu", batch_size
    )
    return {name: value.data for name, value in found.items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-9)


def test_avalanche_computes_the_empirical_fisher_of_batches_of_one() -> None:
    model, images, labels = small()
    expected = avalanche(model, images, labels, 1)
    assert_equal(diagonal_fisher(model, [(images, labels)], log_likelihood), expected)
    singles = zip(images.split(1), labels.split(1), strict=True)
    assert_equal(batch_fisher(model, singles, log_likelihood), expected)


def test_avalanche_computes_the_batch_fisher_of_larger_ones() -> None:
    model, images, labels = small()
    parts = list(zip(images.split(4), labels.split(4), strict=True))
    expected = avalanche(model, images, labels, 4)
    assert_equal(batch_fisher(model, parts, log_likelihood), expected)
    exact = diagonal_fisher(model, parts, log_likelihood)
    assert exact["0.weight"].mean() > 2 * expected["0.weight"].mean(), "not the same thing"


def test_batch_fisher_of_opposite_gradients_is_zero() -> None:
    images, labels = torch.ones(2, 1), torch.tensor([0, 1])
    assert batch_fisher(TwoLogits(), [(images, labels)], log_likelihood)["w"].item() == 0.0


def test_true_fisher_of_the_logistic_model_is_a_quarter_whatever_the_labels() -> None:
    images, labels = torch.ones(3, 1), torch.zeros(3, dtype=torch.int64)
    fisher = true_fisher(TwoLogits(), [(images, labels)], log_likelihood, [0, 1])
    assert fisher["w"].item() == pytest.approx(0.25)


def test_true_fisher_is_the_average_over_the_models_own_answers() -> None:
    """Σ_y p(y|x) g_y², each term as a loop over images."""
    model, images, labels = small()
    with torch.no_grad():
        p = model(images).softmax(1)
    expected = {n: torch.zeros_like(w) for n, w in model.named_parameters()}
    for image, probabilities in zip(images, p, strict=True):
        for label in range(3):
            one = loop(model, image[None], torch.tensor([label]))
            for name in expected:
                expected[name] += probabilities[label] * one[name] / len(images)
    parts = zip(images.split(4), labels.split(4), strict=True)
    assert_equal(true_fisher(model, parts, log_likelihood, [0, 1, 2]), expected)


def test_true_fisher_of_a_linear_gaussian_model_is_the_mean_square_of_the_input() -> None:
    """y = w x + ε, σ = 1: averaged over y = wx ± 1, log p = −½ (y − wx)² gives E[x²]."""
    x = torch.tensor([[1.0], [2.0], [-3.0]])
    model = nn.Linear(1, 1, bias=False)
    noise = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])

    def gaussian(output: Tensor, epsilon: Tensor) -> Tensor:
        target = output.detach()[:, 0] + epsilon
        return -0.5 * (target - output[:, 0]).square().sum()

    fisher = diagonal_fisher(model, [(x.repeat(2, 1), noise)], gaussian)
    assert fisher["weight"].item() == pytest.approx(14 / 3)


@pytest.mark.parametrize("kind", ["empirical", "model", "batch"])
def test_normalised(kind: str) -> None:
    model, images, labels = small()
    plain, mean, largest = (
        fisher_information(kind, model, [(images, labels)], log_likelihood, [0, 1, 2], how)
        for how in ("none", "mean", "max")
    )
    numbers = torch.cat([value.flatten() for value in mean.values()])
    assert numbers.mean().item() == pytest.approx(1.0)
    assert max(float(value.max()) for value in largest.values()) == 1.0
    ratio = plain["0.weight"] / mean["0.weight"]
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
