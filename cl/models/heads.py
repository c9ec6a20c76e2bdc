"""Classifiers over the backbone's features. All of them give logits over the classes seen so far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cl.errors import PalimpsestError
from cl.ops.ridge import ridge


class Head(Protocol):
    """What a model needs of a head. Any module that has this can be one: `model.head = MyHead(features)`."""

    @property
    def classes(self) -> int:
        """How many classes the head has."""

    def grow(self, classes: int, generator: Generator) -> None:
        """Add classes until there are so many; what is known of the old ones stays as it is."""

    def linear_state(self) -> dict[str, Tensor]:
        """Weight, classes × features, and bias of a linear layer that ranks the classes in the same order.

        PalimpsestError says why if there is none.
        """

    def parameters(self) -> Iterator[nn.Parameter]:
        """What may be trained; every `torch.nn.Module` has it."""

    def __call__(self, features: Tensor) -> Tensor:
        """B × features to logits over the classes, B × classes."""


class LinearHead(nn.Module):
    """A linear layer whose rows are the classes; growing leaves the old rows as they are, bit for bit.

    weight: classes × features. bias: classes. New rows and biases are zero, so that a new class begins with
    the logit 0. A cross-entropy over the current classes never compares tasks, and what random rows add to
    the logits of a task (0.02 · ‖features‖, some tenths) stays there, at a small learning rate for good.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, features))
        self.bias = nn.Parameter(torch.empty(0))

    @property
    def classes(self) -> int:
        """How many classes the head has."""
        return len(self.weight)

    def grow(self, classes: int, generator: Generator | None = None) -> None:
        """Add rows until there are `classes`; nothing here is random."""
        added = classes - self.classes
        if added <= 0:
            return
        self.weight = nn.Parameter(F.pad(self.weight.data, (0, 0, 0, added)))
        self.bias = nn.Parameter(F.pad(self.bias.data, (0, added)))

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


class CosineHead(nn.Module):
    """Trained cosine similarities times a trained scale: z_c = scale · cos(f, w_c).

    weight: classes × features; new rows are uniform in ±1/√features. scale: a scalar, at first 1.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(0, features))
        self.scale = nn.Parameter(torch.ones(()))

    @property
    def classes(self) -> int:
        """How many classes the head has."""
        return len(self.weight)

    def grow(self, classes: int, generator: Generator) -> None:
        """Add rows until there are `classes`."""
        features = self.weight.shape[1]
        rows = torch.rand(max(0, classes - self.classes), features, generator=generator) * 2 - 1
        self.weight = nn.Parameter(
            torch.cat([self.weight.data, (rows / features**0.5).to(self.weight)])
        )

    def linear_state(self) -> dict[str, Tensor]:
        """The state of a linear layer that ranks the classes in the same order."""
        weight = F.normalize(self.weight.detach(), dim=1)
        return {"weight": weight, "bias": weight.new_zeros(self.classes)}

    def forward(self, features: Tensor) -> Tensor:
        """B × features to B × classes."""
        return self.scale * (F.normalize(features, dim=1) @ F.normalize(self.weight, dim=1).T)


class RidgeHead(nn.Module):
    """Ridge regression to one-hot labels on random features h = ReLU(f P), from running sums.

    gram: Σ h hᵀ, M × M, and cross: Σ h yᵀ, M × classes, in float64; weight: (gram + λ I)⁻¹ cross. projection:
    features × M, drawn once from N(0, 1); with M = 0 there is none and h = f.
    """

    projection: Tensor
    gram: Tensor
    cross: Tensor
    weight: Tensor

    def __init__(self, features: int, projection: int, generator: Generator) -> None:
        super().__init__()
        width = projection or features
        self.register_buffer("projection", torch.randn(features, projection, generator=generator))
        self.register_buffer("gram", torch.zeros(width, width, dtype=torch.float64))
        self.register_buffer("cross", torch.zeros(width, 0, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(width, 0))

    @property
    def classes(self) -> int:
        """How many classes the head has."""
        return self.cross.shape[1]

    def grow(self, classes: int, generator: Generator | None = None) -> None:
        """Add empty classes until there are `classes`; nothing here is random."""
        added = max(0, classes - self.classes)
        self.cross, self.weight = F.pad(self.cross, (0, added)), F.pad(self.weight, (0, added))

    def expand(self, features: Tensor) -> Tensor:
        """The random features. B × features to B × M."""
        return F.relu(features @ self.projection) if self.projection.shape[1] else features

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add images to the sums. features: B × features. labels: B."""
        hidden = self.expand(features).double()
        self.gram += hidden.T @ hidden
        self.cross += hidden.T @ F.one_hot(labels, self.classes).double()

    def solve(self, strength: float) -> None:
        """Make the weight the solution for λ = strength."""
        self.weight = ridge(self.gram, self.cross, strength).float().contiguous()

    def linear_state(self) -> dict[str, Tensor]:
        """The state of a linear layer that does the same, if there is no random projection."""
        if self.projection.shape[1]:
            raise PalimpsestError(
                "A head on random features is not a linear layer, so a plain timm model cannot hold it. "
                "Use the learner's own format (`Learner.save`), or train with strategy.projection=0."
            )
        return {"weight": self.weight.T, "bias": self.weight.new_zeros(self.classes)}

    def forward(self, features: Tensor) -> Tensor:
        """B × features to B × classes."""
        with torch.autocast(features.device.type, enabled=False):
            return self.expand(features.float()) @ self.weight
