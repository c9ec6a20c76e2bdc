"""Fisher information of a classifier's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

LossOfLogits = Callable[[Tensor, Tensor], Tensor]


def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    log_likelihood: LossOfLogits,
    numbers: int = 2**26,
) -> dict[str, Tensor]:
    """The exact diagonal of the empirical Fisher information,
    F_i = (1/N) Σ_n (∂ log p(y_n | x_n; θ) / ∂θ_i)²,  by parameter name.

    Each image's own gradient is squared: the square of a batch's mean gradient is something else, and
    near zero at a good minimum. batches: (images, labels). log_likelihood: logits (1 × classes) and
    label (1) to a scalar. numbers: how many numbers of single images' gradients are held at once. The
    model should be in evaluation mode. Sources: Kirkpatrick et al. (2017); Martens (2020) on what is
    called empirical.
    """
    weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    frozen = {n: t.detach() for n, t in model.state_dict().items() if n not in weights}

    def log_probability(theta: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, (theta, frozen), (image[None],))
        return log_likelihood(logits, label[None])

    gradients = vmap(grad(log_probability), in_dims=(None, 0, 0))
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    chunk = max(1, numbers // max(1, sum(value.numel() for value in weights.values())))
    count = 0
    for images, labels in batches:
        for some, targets in zip(
            torch.split(images, chunk), torch.split(labels, chunk), strict=True
        ):
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be vectorised over images
                each = gradients(weights, some, targets)
            for name, gradient in each.items():
                total[name] += gradient.square().sum(0)
            count += len(targets)
    return {name: value / max(1, count) for name, value in total.items()}
