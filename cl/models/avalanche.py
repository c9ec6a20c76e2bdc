"""Our models as Avalanche's modules (Carta et al., 2023); it is imported when a function is called."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from cl.data.transforms import Transform
from cl.random import generator


class Pixels(nn.Module):
    """The backbone's transform as a layer: Avalanche's memories then hold images, in bytes."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (or float 0 … 255) B × C × H × W to what the backbone takes."""
        return self.transform(images.permute(0, 2, 3, 1))


def growing(head: nn.Module, seed: int) -> nn.Module:
    """Our head as one of Avalanche's modules that adapt to an experience; its copies grow alike."""
    from avalanche.models import DynamicModule

    class Growing(DynamicModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner: Any = head

        def adaptation(self, experience: Any) -> None:
            self.inner.grow(experience.seen, generator(seed, "head", experience.position))

        def forward(self, features: Tensor) -> Tensor:
            logits: Tensor = self.inner(features)
            return logits

        def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
            self.inner.grow(len(state[f"{prefix}inner.weight"]), generator(seed, "head"))
            super()._load_from_state_dict(state, prefix, *rest)

    return Growing()


def growing_means() -> nn.Module:
    """Avalanche's nearest-mean classifier, but one that loads a state with more classes than it has."""
    from avalanche.models import NCMClassifier

    class Means(NCMClassifier):  # type: ignore[misc]
        def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
            self.class_means = state.get(f"{prefix}class_means")

    return Means(normalize=True)


def widen_logits(policy: Any, classes: int) -> None:
    """Give the logits that DER remembers a zero for each class that came later; it compares all."""
    for group in policy.buffer_groups.values():
        for rows in group.buffer._data_attributes["logits"].data._datasets:
            rows[:] = [F.pad(row, (0, classes - len(row))) for row in rows]
