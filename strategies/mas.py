"""MAS: a spring on every weight, as stiff as the outputs are sensitive to it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.errors import require
from cl.ops.anchors import Springs
from cl.ops.fisher import mean_over_images
from cl.strategy import Strategy
from cl.stream import Experience


class MAS(Strategy):
    """Memory aware synapses (Aljundi et al., 2018).

    L = L_task + strength · Σ_i Ω_i (θ_i − θ*_i)²,  θ* = the weights after the last task, and after each task
    Ω_i ← decay · Ω_i + (1/N) Σ_n |∂ ‖f(x_n)‖² / ∂θ_i|,  f = the logits over all classes seen, each image's
    own gradient, in evaluation mode. Labels are not used.

    strength: λ, without ½; 0 is naive fine-tuning. decay: 1 adds up the tasks as in the paper. (Avalanche
    averages, Ω ← ½ Ω + ½ new, and takes the absolute value of batches' mean gradients.) samples: over how
    many training images, null for all. Stored: Ω and θ*, twice the weights.
    """

    cost = "a pass with each image's gradient"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(
        self, strength: float = 1.0, decay: float = 1.0, samples: int | None = None
    ) -> None:
        super().__init__()
        require(strength >= 0, f"strategy.strength={strength}: it must not be negative.")
        require(0 <= decay <= 1, f"strategy.decay={decay}: it must be in [0, 1].")
        require(
            samples is None or samples >= 1,
            f"strategy.samples={samples}: it must be at least 1, or null for all.",
        )
        self.strength, self.decay, self.samples = strength, decay, samples
        self.springs = Springs()

    def penalty(self) -> Tensor:
        energy = 2 * self.strength * self.springs.energy(dict(self.run.model.named_parameters()))
        self.log("penalty", energy)
        return energy

    def after_experience(self, experience: Experience) -> None:
        data = ((b.images, b.labels) for b in self.batches(experience, limit=self.samples))
        sensitivity = mean_over_images(
            self.run.model, data, lambda logits, label: logits.square().sum(), torch.abs
        )
        self.springs.move(dict(self.run.model.named_parameters()), sensitivity, self.decay)
