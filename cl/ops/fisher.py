"""Fisher information of a classifier's weights, and other means over single images' gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from cl.errors import require, suggest
from cl.ops.per_sample import LossOfLogits as LossOfLogits
from cl.ops.per_sample import PerSampleGradients

Batches = Iterable[tuple[Tensor, Tensor]]

FISHERS = ("empirical", "model", "batch")
NORMALISATIONS = ("none", "mean", "max")


def check_fisher_options(kind: str, normalise: str, samples: int | None) -> None:
    """Raise ConfigurationError unless they are what `fisher_information` takes."""
    require(kind in FISHERS, f"strategy.fisher={kind}: {suggest(kind, FISHERS)}")
    require(
        normalise in NORMALISATIONS,
        f"strategy.normalise={normalise}: {suggest(normalise, NORMALISATIONS)}",
    )
    require(
        samples is None or samples >= 1,
        f"strategy.fisher_samples={samples}: it must be at least 1, or null for all.",
    )


def mean_over_images(
    model: nn.Module,
    batches: Batches,
    objective: LossOfLogits,
    measure: Callable[[Tensor], Tensor],
    numbers: int = 2**26,
) -> dict[str, Tensor]:
    """(1/N) Σ_n measure(∂ objective(f(x_n), y_n) / ∂θ) for each trainable parameter, by name.

    batches: (images, labels). objective: logits (1 × classes) and label (1) to a scalar. measure: acts on
    each number, such as a square. numbers: how many numbers of single images' gradients are held
    at once. The model should be in evaluation mode.
    """
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}

    def receive(name: str, gradients: Tensor) -> None:
        total[name] += measure(gradients).sum(0)

    pass_on = PerSampleGradients(model, objective, receive, numbers)
    count = 0
    for images, labels in batches:
        pass_on(images, labels)
        count += len(labels)
    return {name: value / max(1, count) for name, value in total.items()}


def diagonal_fisher(
    model: nn.Module,
    batches: Batches,
    log_likelihood: LossOfLogits,
    numbers: int = 2**26,
) -> dict[str, Tensor]:
    """The exact diagonal of the empirical Fisher information,
    F_i = (1/N) Σ_n (∂ log p(y_n | x_n; θ) / ∂θ_i)²,  by parameter name.

    Each image's own gradient is squared: the square of a batch's mean gradient is something else, and
    near zero at a good minimum. Arguments as in `mean_over_images`. Sources: Kirkpatrick et al. (2017);
    Martens (2020) on what is called empirical.
    """
    return mean_over_images(model, batches, log_likelihood, torch.square, numbers)


def true_fisher(
    model: nn.Module,
    batches: Batches,
    log_likelihood: LossOfLogits,
    classes: Sequence[int],
    numbers: int = 2**26,
) -> dict[str, Tensor]:
    """The true Fisher information, over the labels that the model itself gives:
    F_i = (1/N) Σ_n Σ_y p(y | x_n; θ) (∂ log p(y | x_n; θ) / ∂θ_i)².

    It needs no labels, and one pass for each of the `classes` that may be answered. Unlike the empirical one
    it does not vanish when the model fits all labels.
    """

    def weighted(logits: Tensor, label: Tensor) -> Tensor:
        value = log_likelihood(logits, label)
        return value * (value.detach() / 2).exp()  # √p, so that the square carries p

    def every_answer() -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in batches:
            for label in classes:
                yield images, torch.full_like(labels, label)

    mean = mean_over_images(model, every_answer(), weighted, torch.square, numbers)
    return {name: value * len(classes) for name, value in mean.items()}


def batch_fisher(
    model: nn.Module, batches: Batches, log_likelihood: LossOfLogits
) -> dict[str, Tensor]:
    """The mean over batches of the squared gradient of the batch's mean: what several libraries compute.

    It depends on the size of the batches: about 1/B of the empirical Fisher information for B images,
    less where gradients cancel, and equal to it for one.
    """
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    count = 0
    for images, labels in batches:
        value = log_likelihood(model(images), labels)
        gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.square()
        count += 1
    return {name: value / max(1, count) for name, value in total.items()}


def fisher_information(
    kind: str,
    model: nn.Module,
    batches: Batches,
    log_likelihood: LossOfLogits,
    classes: Sequence[int],
    normalise: str = "none",
) -> dict[str, Tensor]:
    """One of `FISHERS`; `normalise` (of `NORMALISATIONS`) makes its mean or its largest number 1."""
    if kind == "model":
        fisher = true_fisher(model, batches, log_likelihood, classes)
    else:
        estimate = batch_fisher if kind == "batch" else diagonal_fisher
        fisher = estimate(model, batches, log_likelihood)
    if normalise == "none" or not fisher:
        return fisher
    numbers = torch.cat([value.flatten() for value in fisher.values()])
    scale = (numbers.mean() if normalise == "mean" else numbers.max()).clamp_min(1e-30)
    return {name: value / scale for name, value in fisher.items()}
