"""One Gaussian per class: estimated, stored, sampled, and a head that is trained on the samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F


class Sampled(Protocol):
    """What classifier alignment draws from: `ClassGaussians`, or several per class."""

    def roots(self) -> Tensor:
        """What `sample` takes, computed once."""

    def sample(
        self, count: int, generator: Generator, roots: Tensor, mean_scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`count` samples of each class, shuffled: features and labels."""


class ClassGaussians(nn.Module):
    """Mean and covariance of each class's features, from running moments.

    counts: classes, int64. means: classes × features, float64. spreads, float32: the unbiased covariances,
    classes × features × features, or if `diagonal` the variances, classes × features; zero for a class of
    one image. Images that come later are pooled with the earlier ones of their class. jitter: what is
    added to every variance before sampling, for a few images span few dimensions.
    """

    counts: Tensor
    means: Tensor
    spreads: Tensor

    def __init__(self, features: int, diagonal: bool = False, jitter: float = 1e-4) -> None:
        super().__init__()
        self.diagonal, self.jitter = diagonal, jitter
        shape = (features,) if diagonal else (features, features)
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("means", torch.zeros(0, features, dtype=torch.float64))
        self.register_buffer("spreads", torch.zeros(0, *shape))

    def __len__(self) -> int:
        return len(self.counts)

    def update(self, features: Tensor, labels: Tensor, classes: int) -> None:
        """Grow to `classes` and add images. features: n × features. labels: n."""
        added = max(0, classes - len(self))
        self.counts, self.means = (
            F.pad(self.counts, (0, added)),
            F.pad(self.means, (0, 0, 0, added)),
        )
        self.spreads = F.pad(self.spreads, (0, 0) * (self.spreads.dim() - 1) + (0, added))
        for label in sorted(set(labels.tolist())):
            self._pool(label, features[labels == label].double())

    def _pool(self, label: int, features: Tensor) -> None:
        """Chan's formula for the moments of two sets together."""
        old, new = int(self.counts[label]), len(features)
        total, mean = old + new, features.mean(0)
        shift, centred = mean - self.means[label], features - mean
        scatter = max(old - 1, 0) * self.spreads[label].double()
        if self.diagonal:
            scatter += centred.square().sum(0) + old * new / total * shift.square()
        else:
            scatter += centred.T @ centred + old * new / total * torch.outer(shift, shift)
        self.counts[label] = total
        self.means[label] += shift * new / total
        self.spreads[label] = (scatter / max(total - 1, 1)).float()

    def roots(self) -> Tensor:
        """L with L Lᵀ = Σ + jitter · I for each class, or the standard deviations if diagonal; float32."""
        if self.diagonal:
            return (self.spreads + self.jitter).sqrt()
        return torch.stack([_root(spread.double(), self.jitter).float() for spread in self.spreads])

    def sample(
        self, count: int, generator: Generator, roots: Tensor, mean_scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`count` samples of N(scale_c · μ_c, Σ_c) for each class, shuffled: features and labels.

        generator: on the CPU. roots: from `roots()`. mean_scale: classes.
        """
        classes, width = self.means.shape
        noise = torch.randn(classes, count, width, generator=generator).to(roots)
        noise = noise * roots[:, None] if self.diagonal else noise @ roots.mT
        means = self.means if mean_scale is None else self.means * mean_scale[:, None]
        samples = (noise + means[:, None].to(roots)).flatten(0, 1)
        labels = torch.arange(classes).repeat_interleave(count)
        order = torch.randperm(len(labels), generator=generator)
        return samples[order.to(samples.device)], labels[order].to(samples.device)


def _root(covariance: Tensor, jitter: float) -> Tensor:
    """The Cholesky factor with the least jitter, in steps of ten, that makes it positive definite."""
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    while True:
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(covariance + jitter * identity)
        if not int(failed):
            return factor
        jitter = max(10 * jitter, 1e-12)


def align(
    head: nn.Module,
    gaussians: Sampled,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    epochs: int,
    samples: int,
    lr: float,
    weight_decay: float,
    generator: Generator,
    mean_scale: Tensor | None = None,
) -> Tensor:
    """Classifier alignment: train `head` on samples of all classes' Gaussians; returns the last loss.

    An epoch draws `samples` of each class anew and takes one step on every batch of `samples`, thus as many
    steps as there are classes. SGD with momentum 0.9; the rate falls by half a cosine over the epochs.
    loss: of logits and labels. Source: Zhang et al. (2023).
    """
    optimizer = torch.optim.SGD(head.parameters(), lr, momentum=0.9, weight_decay=weight_decay)
    roots = gaussians.roots()
    value = roots.new_zeros(())
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        features, labels = gaussians.sample(samples, generator, roots, mean_scale)
        parts = torch.split(features, samples), torch.split(labels, samples)
        for some, targets in zip(*parts, strict=True):
            with torch.enable_grad():
                value = loss(head(some), targets)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    optimizer.zero_grad()
    return value.detach()
