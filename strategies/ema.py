"""Weight averaging as a plugin: after each experience the model holds the average of its path."""

from __future__ import annotations

import torch

from cl.errors import require
from cl.ops.tensors import TensorDict
from cl.strategy import Plugin
from cl.stream import Experience


class EMA(Plugin):
    """Exponential moving average of the trained weights (Polyak and Juditsky, 1992).

    Every step  θ̄ ← decay · θ̄ + (1 − decay) · θ,  from θ̄ = θ at the start of the experience; after the
    experience θ̄ becomes the model. A larger decay keeps more of the older tasks.
    """

    cost = "one sum over the weights a step"

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        require(0 <= decay < 1, f"plugin.ema.decay={decay}: it must be in [0, 1).")
        self.decay = decay
        self.average = TensorDict()

    def before_experience(self, experience: Experience) -> None:
        self.average = TensorDict()
        for name, weight in self.run.model.named_parameters():
            if weight.requires_grad:
                self.average[name] = weight.detach().clone()

    @torch.no_grad()
    def after_step(self) -> None:
        weights = dict(self.run.model.named_parameters())
        for name, average in self.average.items():
            average.lerp_(weights[name], 1 - self.decay)

    @torch.no_grad()
    def after_training(self) -> None:
        weights = dict(self.run.model.named_parameters())
        for name, average in self.average.items():
            weights[name].copy_(average)
        self.average = TensorDict()
