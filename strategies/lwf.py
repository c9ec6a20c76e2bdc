"""LwF: the previous model labels the new images, and its answers are kept to."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cl.data import Batch
from cl.errors import require
from cl.ops.distillation import distillation
from cl.strategy import Strategy
from cl.stream import Experience


class LwF(Strategy):
    """Learning without forgetting (Li and Hoiem, 2016).

    L = CE over the current classes + strength · KL(softmax(z_old/τ) ‖ softmax(z/τ)),  z_old = the logits of
    the model before this experience, frozen and in evaluation mode, for the same augmented images; both
    softmaxes are over the classes it knew.

    strength: α, without Hinton's factor of τ²; 0 is naive fine-tuning. temperature: τ. The paper's warm-up
    of the new head alone is left out, as in Avalanche. Nothing is stored between experiences: at the start of
    one, the model itself is the teacher; a copy of it is held while it trains.
    """

    cost = "a teacher's pass a step"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(self, strength: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__()
        require(strength >= 0, f"strategy.strength={strength}: it must not be negative.")
        require(temperature > 0, f"strategy.temperature={temperature}: it must be positive.")
        self.strength, self.temperature = strength, temperature
        self.teacher: list[nn.Module] = []  # in a list, so that it is not part of the state

    def before_experience(self, experience: Experience) -> None:
        if self.strength and self.run.model.head.classes:
            self.teacher = [copy.deepcopy(self.run.model).eval().requires_grad_(False)]
        self.grow_head(experience)

    def loss(self, batch: Batch) -> Tensor:
        logits = self.run.model(batch.images)
        loss = self.cross_entropy(logits, batch.labels)
        self.log("cross_entropy", loss)
        for teacher in self.teacher:
            with torch.no_grad():
                old = teacher(batch.images)
            kept = distillation(logits[:, : old.shape[1]], old, self.temperature)
            self.log("distillation", kept)
            loss = loss + self.strength * kept
        return loss + self.penalty()

    def after_experience(self, experience: Experience) -> None:
        self.teacher = []
