"""CoDyRA: each task's low-rank update uses only as many rank-one terms as survive a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl.errors import require, require_one_of
from cl.models.lora import GatedLoRALayer, inject_lora
from cl.models.model import Model
from cl.ops.thresholds import climbing_threshold, shrink_then_cut, soft_threshold
from cl.strategy import ParameterGroup, Strategy
from cl.stream import Experience, StreamInfo


class CoDyRA(Strategy):
    """Continual dynamic rank-selective LoRA (Lu et al., 2024).

    Each task learns ΔW = Σ_j w_j B_j A_j in every linear layer, with L = L_task + λ Σ‖w‖₁. The ℓ1 term is
    taken by its proximal step: after each optimiser step of the second phase w ← sign(w) · max(|w| − κ, 0),
    while κ climbs from 0 to its maximum. After the task ΔW is added to W: nothing is stored.

    rank: terms per matrix. targets: roles or ends of layer names; q, k and v of a fused layer have terms of
    their own. threshold: the highest κ, for an experience of `reference_steps` steps; it is scaled to the
    actual number, so that Σκ, what a gate loses in all, stays the same; null takes it as it is. dense:
    share of the steps without threshold. levels: how many values κ takes. operator: "soft", or
    "official", which shrinks by κ and then zeroes what is below κ, so everything below 2κ. gate_init:
    "normal" as in the official code, or "ones". gate_lr_factor: on the gates' learning rate.

    With the official numbers a gate loses 0.65 while Adam can move it by about 0.1: which terms survive is
    nearly decided by their initial value. The log has the number of survivors per matrix ("rank") and the
    correlation of |w| before and after ("gate_correlation"), except where one of the two is the same for
    all gates: with gate_init="ones", or when none survives. The paper adapts both encoders of CLIP and
    classifies by text; here a linear head is trained.
    """

    cost = "low-rank factors in every layer"

    def __init__(
        self,
        rank: int = 16,
        targets: Sequence[str] = ("q", "k", "v", "output", "mlp"),
        threshold: float = 0.005,
        reference_steps: int | None = 500,
        dense: float = 0.5,
        levels: int = 50,
        operator: str = "soft",
        gate_init: str = "normal",
        gate_lr_factor: float = 1.0,
    ) -> None:
        super().__init__()
        operators = {"soft": soft_threshold, "official": shrink_then_cut}
        require_one_of("strategy.operator", operator, operators)
        require_one_of("strategy.gate_init", gate_init, ("normal", "ones"))
        require(threshold >= 0, f"strategy.threshold={threshold}: it must not be negative.")
        require(0 <= dense <= 1, f"strategy.dense={dense}: it must be in [0, 1].")
        require(levels >= 2, f"strategy.levels={levels}: it must be at least 2.")
        self.rank, self.targets, self.threshold = rank, tuple(targets), threshold
        self.reference_steps, self.dense, self.levels = reference_steps, dense, levels
        self.shrink, self.gate_init, self.gate_lr_factor = (
            operators[operator],
            gate_init,
            gate_lr_factor,
        )

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.backbone.requires_grad_(False)
        inject_lora(model.backbone, self.targets, self.rank, self.rank, kind=GatedLoRALayer)

    @property
    def layers(self) -> list[GatedLoRALayer]:
        """The adapted layers, in order."""
        return [layer for layer in self.run.model.modules() if isinstance(layer, GatedLoRALayer)]

    @property
    def gates(self) -> Tensor:
        """All gates, one beside the other."""
        return torch.cat([layer.gate.detach().flatten() for layer in self.layers])

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        generator = self.generator("lora", experience.index)
        for layer in self.layers:
            layer.reset(generator)
            if self.gate_init == "ones":
                layer.gate.data.fill_(1.0)
        self.initial_gates, self.step = self.gates.clone(), 0

    def parameter_groups(self) -> list[ParameterGroup]:
        gates = [layer.gate for layer in self.layers]
        ids = {id(gate) for gate in gates}
        (group,) = super().parameter_groups()
        others = [p for p in group["params"] if id(p) not in ids]
        betas = (0.9, 0.9999)
        return [
            {"params": others, "betas": betas},
            {
                "params": gates,
                "betas": betas,
                "lr_factor": self.gate_lr_factor,
                "weight_decay": 0.0,
            },
        ]

    def before_training(self, steps: int) -> None:
        self.steps = steps

    @torch.no_grad()
    def after_step(self) -> None:
        kappa = self.kappa(self.step, self.steps)
        self.step += 1
        if kappa:
            for layer in self.layers:
                layer.gate.copy_(self.shrink(layer.gate, kappa))

    def kappa(self, step: int, steps: int) -> float:
        """The threshold after a step of so many."""
        highest = self.threshold * (self.reference_steps / steps if self.reference_steps else 1.0)
        return highest * climbing_threshold(step, steps, self.dense, self.levels)

    def after_experience(self, experience: Experience) -> None:
        final, layers = self.gates, self.layers
        self.log("rank", final.count_nonzero() / sum(len(layer.blocks) for layer in layers))
        both = torch.stack([self.initial_gates.to(final).abs(), final.abs()])
        correlation = torch.corrcoef(both)[0, 1]
        if correlation.isfinite():  # a constant has none
            self.log("gate_correlation", correlation)
        for layer in layers:
            layer.merge()
