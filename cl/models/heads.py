"""Classifiers over the backbone's features. All of them give logits over the classes seen so far."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F


class LinearHead(nn.Module):
    """A linear layer whose rows are the classes; growing leaves the old rows as they are, bit for bit.

    weight: classes × features. bias: classes. New rows are drawn from N(0, 0.02²), with bias 0.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, features))
        self.bias = nn.Parameter(torch.empty(0))

    @property
    def classes(self) -> int:
        """How many classes the head has."""
        return len(self.weight)

    def grow(self, classes: int, generator: Generator) -> None:
        """Add rows until there are `classes`."""
        added = classes - self.classes
        if added <= 0:
            return
        rows = torch.randn(added, self.weight.shape[1], generator=generator) * 0.02
        weight, bias = self.weight.data, self.bias.data
        self.weight = nn.Parameter(torch.cat([weight, rows.to(weight)]))
        self.bias = nn.Parameter(torch.cat([bias, bias.new_zeros(added)]))

    def linear_state(self) -> dict[str, Tensor]:
        """The state of a linear layer that ranks the classes in the same order."""
        return {"weight": self.weight.detach(), "bias": self.bias.detach()}

    def forward(self, features: Tensor) -> Tensor:
        """B × features to B × classes."""
        return F.linear(features, self.weight, self.bias)


class PrototypeHead(nn.Module):
    """The nearest class mean by cosine similarity; nothing in it is trained by gradient.

    sums: classes × features, float64. counts: classes. A class without images gives the logit −∞.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(0, features, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))

    @property
    def classes(self) -> int:
        """How many classes the head has."""
        return len(self.sums)

    def grow(self, classes: int, generator: Generator | None = None) -> None:
        """Add empty classes until there are `classes`; nothing here is random."""
        added = max(0, classes - self.classes)
        self.sums = F.pad(self.sums, (0, 0, 0, added))
        self.counts = F.pad(self.counts, (0, added))

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add images to the running means. features: B × features. labels: B."""
        self.sums.index_add_(0, labels, features.to(self.sums))
        self.counts += torch.bincount(labels, minlength=self.classes)

    def linear_state(self) -> dict[str, Tensor]:
        """The state of a linear layer that ranks the classes in the same order: the logits differ by
        the length of the image's features, which is the same for all classes."""
        weight = F.normalize(self.sums, dim=1).float()
        return {"weight": weight, "bias": weight.new_zeros(self.classes)}

    def forward(self, features: Tensor) -> Tensor:
        """B × features to cosine similarities, B × classes."""
        prototypes = F.normalize(self.sums, dim=1).to(features)
        similarity = F.normalize(features, dim=1) @ prototypes.T
        return similarity.masked_fill(self.counts == 0, -torch.inf)
