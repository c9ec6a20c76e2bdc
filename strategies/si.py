"""SI: a spring on every weight, as stiff as the weight helped to bring the loss down."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.errors import require
from cl.ops.anchors import Springs
from cl.strategy import Strategy
from cl.stream import Experience


class SI(Strategy):
    """Synaptic intelligence (Zenke et al., 2017).

    Each step  ω_i ← ω_i − g_i Δθ_i,  g = the gradient of the loss without the penalty, Δθ = what the
    optimiser did. After each task  Ω_i ← Ω_i + max(0, ω_i) / ((θ_i − θ_i^start)² + damping),  θ* ← θ.
    L = L_task + strength · Σ_i Ω_i (θ_i − θ*_i)².

    strength: c, without ½; 0 is naive fine-tuning. The authors' 0.1 is for networks that learn from
    scratch; fine-tuning goes a short way, whose ω are tiny, hence the large default. damping: ξ. (Some
    codes leave the penalty in g, which counts it twice, or keep negative Ω.) Stored: Ω and θ*, twice the
    weights; while training four times more.
    With trainer.precision=16 gradients are scaled and ω would be, too: use 32 or bf16.
    """

    cost = "sums over the weights a step"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __init__(self, strength: float = 1e5, damping: float = 0.1) -> None:
        super().__init__()
        require(strength >= 0, f"strategy.strength={strength}: it must not be negative.")
        require(damping > 0, f"strategy.damping={damping}: it must be positive.")
        self.strength, self.damping = strength, damping
        self.springs = Springs()
        self.path: dict[str, Tensor] = {}

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        self.start = {n: p.detach().clone() for n, p in self._trained().items()}
        self.path = {name: torch.zeros_like(weight) for name, weight in self.start.items()}

    def penalty(self) -> Tensor:
        energy = 2 * self.strength * self.springs.energy(dict(self.run.model.named_parameters()))
        self.log("penalty", energy)
        return energy

    @torch.no_grad()
    def after_backward(self) -> None:
        self.step: dict[str, tuple[Tensor, Tensor]] = {}
        for name, weight in self._trained().items():
            if weight.grad is not None:
                gradient = weight.grad - 2 * self.strength * self.springs.force(name, weight)
                self.step[name] = gradient, weight.detach().clone()

    @torch.no_grad()
    def after_step(self) -> None:
        weights = self._trained()
        for name, (gradient, before) in self.step.items():
            self.path[name] -= gradient * (weights[name] - before)

    @torch.no_grad()
    def after_experience(self, experience: Experience) -> None:
        weights = self._trained()
        stiffness = {
            name: path.clamp_min(0) / ((weights[name] - self.start[name]) ** 2 + self.damping)
            for name, path in self.path.items()
        }
        self.springs.move(weights, stiffness)
        self.start, self.path, self.step = {}, {}, {}

    def _trained(self) -> dict[str, Tensor]:
        return {n: p for n, p in self.run.model.named_parameters() if p.requires_grad}
