"""EWC: a spring on every weight, as stiff as the weight was important."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from cl.errors import require
from cl.ops.anchors import Springs
from cl.ops.fisher_estimate import FisherEstimate
from cl.strategy import Strategy
from cl.stream import Experience


class EWC(Strategy):
    """Elastic weight consolidation (Kirkpatrick et al., 2017), with one spring per task seen.

    L = L_task + strength/2 · Σ_k Σ_i F_i^k (θ_i − θ_i^k)²,  with the exact per-sample Fisher
    information F^k of task k's training data at θ^k, the weights after task k. The sum over tasks is
    kept as one quadratic, so memory does not grow: twice the weights.

    strength: λ; 0 is naive fine-tuning. The default is large because a network that fits its data has
    tiny gradients, and so a tiny empirical Fisher information. Note the ½: λ here is twice that of codes
    without it, and about 1/batch-size of that of codes that square a batch's mean gradient.
    fisher_samples: how many training images the Fisher information is taken over; null for all.
    fisher: "empirical" (at the labels), "model" (over the model's own answers; one pass per class) or
    "batch" (squares of the mean gradients of batches of trainer.evaluation_batch_size, as Avalanche does
    with its training batches). normalise: make the "mean" or the "max" of each task's F one, so that no
    task dominates by its scale, or "none". F is then orders of magnitude larger, and strength must come
    down: plain gradient descent diverges where lr · strength · F passes 2. The running averages of batch
    norms are no weights and are not held.
    """

    cost = "a pass with each image's gradient"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(
        self,
        strength: float = 1e4,
        fisher_samples: int | None = None,
        fisher: str = "empirical",
        normalise: str = "none",
    ) -> None:
        super().__init__()
        require(strength >= 0, f"strategy.strength={strength}: it must not be negative.")
        self.information = FisherEstimate(fisher, normalise, fisher_samples)
        self.strength = strength
        self.springs = Springs()

    def penalty(self) -> Tensor:
        energy = self.strength * self.springs.energy(dict(self.run.model.named_parameters()))
        self.log("penalty", energy)
        return energy

    def after_experience(self, experience: Experience) -> None:
        data = self.batches(experience, limit=self.information.samples)
        fisher = self.information(self.run.model, data, self.cross_entropy, experience.classes)
        self.springs.add(dict(self.run.model.named_parameters()), fisher)
