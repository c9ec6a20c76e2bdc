"""Online EWC: one spring on every weight, tied to where the weight was last."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from cl.errors import require
from cl.ops.anchors import Springs
from cl.ops.fisher_estimate import FisherEstimate
from cl.strategy import Strategy
from cl.stream import Experience


class OnlineEWC(Strategy):
    """Online elastic weight consolidation (Schwarz et al., 2018; Huszár, 2018).

    L = L_task + strength/2 · Σ_i Ω_i (θ_i − θ*_i)²,  θ* = the weights after the last task, and after each
    task  Ω ← decay · Ω + F,  with the exact per-sample Fisher information F of its training data at θ*.

    strength: λ; 0 is naive fine-tuning. Codes without the ½ have half of it. decay: γ; 1 keeps all tasks
    alike, 0 only the last. fisher_samples: over how many training images, null for all. fisher: "empirical"
    (at the labels), "model" (over the model's own answers; one pass per class) or "batch" (squares of mean
    gradients of batches of trainer.evaluation_batch_size). normalise: make the "mean" or the "max" of each
    task's F one, or "none". Stored: Ω and θ*, twice the weights.
    """

    cost = "a pass with each image's gradient"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(
        self,
        strength: float = 1e4,
        decay: float = 1.0,
        fisher_samples: int | None = None,
        fisher: str = "empirical",
        normalise: str = "none",
    ) -> None:
        super().__init__()
        require(strength >= 0, f"strategy.strength={strength}: it must not be negative.")
        require(0 <= decay <= 1, f"strategy.decay={decay}: it must be in [0, 1].")
        self.information = FisherEstimate(fisher, normalise, fisher_samples)
        self.strength, self.decay = strength, decay
        self.springs = Springs()

    def penalty(self) -> Tensor:
        energy = self.strength * self.springs.energy(dict(self.run.model.named_parameters()))
        self.log("penalty", energy)
        return energy

    def after_experience(self, experience: Experience) -> None:
        data = self.batches(experience, limit=self.information.samples)
        fisher = self.information(self.run.model, data, self.cross_entropy, experience.classes)
        self.springs.move(dict(self.run.model.named_parameters()), fisher, self.decay)
