"""Each image's own gradient by one backward pass per image, and what `PerSampleGradients` finds."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cl.ops.per_sample import PerSampleGradients

Gradients = dict[str, Tensor]


def objective(logits: Tensor, labels: Tensor) -> Tensor:
    return -F.cross_entropy(logits, labels)


def loop(model: nn.Module, images: Tensor, labels: Tensor) -> Gradients:
    """One backward pass per image: N × the parameter's shape."""
    each: dict[str, list[Tensor]] = {}
    for image, label in zip(images, labels, strict=True):
        model.zero_grad()
        objective(model(image[None]), label[None]).backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                each.setdefault(name, []).append(gradient.clone())
    model.zero_grad()
    return {name: torch.stack(parts) for name, parts in each.items()}


def found(
    model: nn.Module, images: Tensor, labels: Tensor, numbers: int = 2**26
) -> tuple[Gradients, set[str]]:
    """What `PerSampleGradients` passes on, and the names that no rule covers."""
    each: dict[str, list[Tensor]] = {}

    def receive(name: str, gradients: Tensor) -> None:
        each.setdefault(name, []).append(gradients.clone())

    pass_on, slow = PerSampleGradients(model, objective, receive, numbers), set()
    vectorised = pass_on._vectorised

    def watched(names: list[str], *rest: Tensor) -> None:
        slow.update(names)
        vectorised(names, *rest)

    pass_on._vectorised = watched  # type: ignore[method-assign]
    pass_on(images, labels)
    return {name: torch.cat(parts) for name, parts in each.items()}, slow


def assert_exact(
    model: nn.Module, shape: tuple[int, ...], slow: set[str] = frozenset(), count: int = 5
) -> None:
    """The gradients are the loop's, image by image; only the parameters `slow` needed torch.func."""
    model = model.double().eval()
    generator = Generator().manual_seed(1)
    images = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(count) % 3
    expected = loop(model, images, labels)
    gradients, fell_back = found(model, images, labels)
    assert fell_back == slow
    for name, value in expected.items():
        if name in gradients or value.any():
            torch.testing.assert_close(gradients[name], value, rtol=1e-9, atol=1e-13, msg=name)
    assert all(parameter.grad is None for parameter in model.parameters())


class Net(nn.Module):
    """Something in between, then the mean over all places, and a linear layer to three classes."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y = y.flatten(2).mean(2) if y.ndim == 4 else y.mean(1) if y.ndim == 3 else y
        logits: Tensor = self.head(torch.tanh(y))
        return logits
