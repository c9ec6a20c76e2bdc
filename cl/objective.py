"""What is asked of a model: how its head grows, the loss, and which answers are right."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl.experience import Experience
from cl.models.heads import Head
from cl.random import generator

Classes = Literal["current", "seen"]


class Objective(Protocol):
    """What `Strategy.objective` must offer; `Classification` is the one that strategies have unless told."""

    def begin(self, head: Head, experience: Experience, seed: int) -> None:
        """An experience begins: let the head grow, and note what its loss is over."""

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar."""

    def right(self, outputs: Tensor, labels: Tensor, within: Tensor) -> tuple[Tensor, Tensor]:
        """How many answers of each item are right, of all and of those `within` the task: int64 B each."""


class Classification(nn.Module):
    """One class for each item: cross-entropy over the "current" experience's classes or all those "seen".

    mask: classes seen; 0 for a class that the cross-entropy is over, −∞ for another.
    """

    mask: Tensor

    def __init__(self, classes: Classes = "current") -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("mask", torch.zeros(0), persistent=False)

    def begin(self, head: Head, experience: Experience, seed: int) -> None:
        """Let the head grow to the classes seen, and note over which of them the cross-entropy is."""
        # One seed for all methods: random rows (CosineHead's) are the same whatever the method.
        head.grow(experience.seen, generator(seed, "head", experience.index))
        mask = torch.zeros(experience.seen)
        if self.classes == "current":
            mask.fill_(-torch.inf)[list(experience.classes)] = 0.0
        self.mask = mask

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy. outputs: logits, B × classes seen. labels: B."""
        return F.cross_entropy(outputs + self.mask, labels)

    def right(self, outputs: Tensor, labels: Tensor, within: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the highest logit is the label's: among all, and among `within`, a mask B × classes."""
        among_all = outputs.argmax(1) == labels
        among_own = outputs.masked_fill(~within, -torch.inf).argmax(1) == labels
        return among_all.long(), among_own.long()
