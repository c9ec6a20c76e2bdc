"""SD-LoRA: the directions that earlier tasks found are kept, and every task weighs them anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

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
    there is another rank, {4: 8, 8: 6} in the official code. targets: ends of layer names; ":q,v" picks rows
    of a fused layer. start: of every α. norm: "factors" as above and in the official code, or "product":
    divide by ‖B_i A_i‖_F, so that a direction has length 1 and not at most 1. Magnitudes are in the log.
    """

    cost = "low-rank factors of all tasks"
    grows = "LoRA factors"

    def __init__(
        self,
        rank: int = 10,
        reduced_ranks: Mapping[int, int] | None = None,
        targets: Sequence[str] = ("attn.qkv:q,v",),
        start: float = 0.8,
        norm: str = "factors",
    ) -> None:
        super().__init__()
        require_one_of("strategy.norm", norm, ("factors", "product"))
        ranks = {0: rank, **{int(task): int(r) for task, r in (reduced_ranks or {}).items()}}
        for task, value in ranks.items():
            require(task >= 0 and value >= 1, f"strategy.reduced_ranks: {task}: {value} cannot be.")
        self.ranks, self.targets, self.start, self.norm = ranks, tuple(targets), start, norm

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.backbone.requires_grad_(False)
        model.magnitudes = nn.Parameter(torch.full((1,), self.start))
        rank = self.ranks[0]
        for layer in inject_lora(model.backbone, self.targets, rank, rank, kind=ScaledLoRALayer):
            layer.share(model.magnitudes)

    @property
    def layers(self) -> list[ScaledLoRALayer]:
        """The adapted layers, in order."""
        return [layer for layer in self.model.modules() if isinstance(layer, ScaledLoRALayer)]

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        task, generator = experience.index, self.generator("lora", experience.index)
        rank = self.ranks[max(first for first in self.ranks if first <= task)]
        for layer in self.layers:
            if task:
                layer.keep_direction(task - 1, product=self.norm == "product")
            layer.resize(rank)
            layer.reset(generator)
        magnitudes = self.model.magnitudes
        magnitudes.grad = None  # of the former size
        magnitudes.data = magnitudes.data.new_full((task + 1,), self.start)

    def after_experience(self, experience: Experience) -> None:
        for task, magnitude in enumerate(self.model.magnitudes):
            self.log(f"magnitude_{task}", magnitude)
