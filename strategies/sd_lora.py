"""SD-LoRA: the directions that earlier tasks found are kept, and every task weighs them anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl.errors import require, require_one_of
from cl.models.lora import ScaledLoRALayer, inject_lora
from cl.models.model import Model
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo


class SDLoRA(Strategy):
    """Scalable decoupled LoRA (Wu et al., 2025).

    h = W x + Σ_{i<t} α_i B_i A_i x / (‖B_i‖_F ‖A_i‖_F) + α_t B_t A_t x.  Trained: A_t, B_t, the head, and all
    magnitudes α, one per task for the whole network. The directions of earlier tasks stay fixed. As in
    the official code every task starts from all α = start, so at the boundary the function jumps, from the
    last task's B_t A_t to its direction; predictions between two tasks are made before the jump.

    rank: of a task's LoRA. reduced_ranks: the variant SD-LoRA-RR: from which task (counted from 0) on
    there is another rank, {4: 8, 8: 6} in the official code. targets: roles or ends of layer names; q and v
    may be rows. start: of every α. norm: "factors" as above and in the official code, or "product":
    divide by ‖B_i A_i‖_F, so that a direction has length 1 and not at most 1. distil: the variant SD-LoRA-KD:
    after a task, if B_t A_t of all layers is Σ_i c_i D_i, with D_i the old directions, but for a residual of
    this share of its length, it is dropped, and α_i ← α_i + α_t c_i; 0 keeps all. Magnitudes are in the log.
    """

    cost = "low-rank factors of all tasks"
    grows = "LoRA factors"

    def __init__(
        self,
        rank: int = 10,
        reduced_ranks: Mapping[int, int] | None = None,
        targets: Sequence[str] = ("q", "v"),
        start: float = 0.8,
        norm: str = "factors",
        distil: float = 0.0,
    ) -> None:
        super().__init__()
        require_one_of("strategy.norm", norm, ("factors", "product"))
        require(0 <= distil < 1, f"strategy.distil={distil}: it must be in [0, 1).")
        ranks = {0: rank, **{int(task): int(r) for task, r in (reduced_ranks or {}).items()}}
        for task, value in ranks.items():
            require(task >= 0 and value >= 1, f"strategy.reduced_ranks: {task}: {value} cannot be.")
        self.ranks, self.targets, self.start, self.norm = ranks, tuple(targets), start, norm
        self.distil = distil

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.backbone.requires_grad_(False)
        model.magnitudes = nn.Parameter(torch.full((1,), self.start))
        rank = self.ranks[0]
        for layer in inject_lora(model.backbone, self.targets, rank, rank, kind=ScaledLoRALayer):
            layer.share(model.magnitudes)

    @property
    def layers(self) -> list[ScaledLoRALayer]:
        """The adapted layers, in order."""
        return [layer for layer in self.run.model.modules() if isinstance(layer, ScaledLoRALayer)]

    @property
    def directions(self) -> int:
        """How many directions of earlier tasks there are."""
        return len(self.layers[0].old_task.unique())

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        task, generator = experience.index, self.generator("lora", experience.index)
        rank = self.ranks[max(first for first in self.ranks if first <= task)]
        magnitudes, old = self.run.model.magnitudes, self.directions
        keep = task > 0 and magnitudes[-1].item() != 0  # it is 0 if the direction was dropped
        for layer in self.layers:
            if keep:
                layer.keep_direction(old, product=self.norm == "product")
            layer.resize(rank)
            layer.reset(generator)
        magnitudes.grad = None  # of the former size
        magnitudes.data = magnitudes.data.new_full((self.directions + 1,), self.start)

    def after_experience(self, experience: Experience) -> None:
        if self.distil and self.directions:
            self.drop_if_dependent()
        for task, magnitude in enumerate(self.run.model.magnitudes):
            self.log(f"magnitude_{task}", magnitude)

    @torch.no_grad()
    def drop_if_dependent(self) -> None:
        """If the new direction is nearly a combination of the old ones, let their magnitudes carry it."""
        old = self.directions
        G = torch.stack([inner_products(layer, old) for layer in self.layers]).sum(0)
        coefficients = torch.linalg.pinv(G[:-1, :-1], hermitian=True) @ G[:-1, -1]  # least squares
        residual = (G[-1, -1] - coefficients @ G[:-1, -1]).clamp(min=0).sqrt()
        if residual <= self.distil * G[-1, -1].sqrt():
            magnitudes = self.run.model.magnitudes
            magnitudes[:-1] += magnitudes[-1] * coefficients
            magnitudes[-1] = 0.0


def inner_products(layer: ScaledLoRALayer, directions: int) -> Tensor:
    """⟨D_i, D_j⟩ of a layer's old directions and, as the last, of B A of the current task; float64."""
    A = torch.cat([layer.old_A, layer.A], dim=1).double()
    B = torch.cat([layer.old_B, layer.B], dim=2).double()
    terms = ((B.mT @ B) * (A @ A.mT)).sum(0)  # of the rank-one terms
    current = layer.old_task.new_full((layer.A.shape[1],), directions)
    owner = F.one_hot(torch.cat([layer.old_task, current]), directions + 1).double()
    return owner.T @ terms @ owner
