"""O-LoRA: each task learns in its own low-rank subspace, orthogonal to those of the earlier tasks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from cl.errors import require, require_one_of
from cl.models.lora import inject_lora, lora_layers
from cl.models.model import Model
from cl.ops.subspaces import into_null_space, row_space_overlap
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo


class OLoRA(Strategy):
    """Orthogonal subspace learning (Wang et al., 2023). Not PEFT's "olora", a QR initialisation.

    Each task trains a LoRA of its own, W + s Σ_{i<t} B_i A_i + s B_t A_t with the earlier ones frozen, and
    L = L_task + orthogonality · Σ_m Σ_jk |(A_old A_tᵀ)_jk| + decay · Σ_m (‖A_t‖_F + ‖B_t‖_F),
    where m runs over the adapted matrices of all layers: the q and the v rows of a fused layer are two.

    rank, alpha, dropout: of the LoRA; s = alpha / rank. Dropout is on the inputs of A_t only; the official
    code drops those of A_old as well. targets: roles or ends of layer names; q and v may be rows.
    orthogonality, decay: λ1 and λ2. norm: "l1" as in the official code, or "squared" as the paper writes
    it. normalise: divide the first sum by the number of matrices, so that λ1 carries over to a backbone of
    another depth; the official code does not. merge: fold a task's LoRA into the frozen weight after the
    task and keep only A for the penalty: the same function with half the memory. init: of A_t, "kaiming"
    as in the official code, or "null_space": the same, turned orthogonal to A_old, so that a task starts
    without penalty. The penalty grows with rank and number of tasks, and with depth unless normalised; it
    is in the log, beside the overlap of the subspaces, which unlike the penalty does not fall when A merely
    shrinks. Where rank · tasks passes the width of a layer's input, not all of them can be orthogonal.
    """

    cost = "low-rank factors of all tasks"
    grows = "LoRA factors"

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 32.0,
        dropout: float = 0.1,
        targets: Sequence[str] = ("q", "v"),
        orthogonality: float = 0.5,
        decay: float = 0.0,
        norm: str = "l1",
        normalise: bool = False,
        merge: bool = False,
        init: str = "kaiming",
    ) -> None:
        super().__init__()
        require_one_of("strategy.init", init, ("kaiming", "null_space"))
        require_one_of("strategy.norm", norm, ("l1", "squared"))
        for name, value in (("orthogonality", orthogonality), ("decay", decay)):
            require(value >= 0, f"strategy.{name}={value}: it must not be negative.")
        require(0 <= dropout < 1, f"strategy.dropout={dropout}: it must be in [0, 1).")
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, tuple(targets)
        self.orthogonality, self.decay, self.norm, self.merge = orthogonality, decay, norm, merge
        self.normalise, self.init = normalise, init

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.backbone.requires_grad_(False)
        inject_lora(model.backbone, self.targets, self.rank, self.alpha, self.dropout)
        self.experiences = stream.experiences

    def before_experience(self, experience: Experience) -> None:
        self.check_room(max(self.experiences, experience.index + 1))
        self.grow_head(experience)
        generator = self.generator("lora", experience.index)
        for layer in lora_layers(self.run.model):
            layer.reset(generator)
            if self.init == "null_space" and layer.old_A.shape[1]:
                layer.A.data.copy_(into_null_space(layer.A.data, layer.old_A))

    def check_room(self, tasks: int) -> None:
        """Say so if that many tasks have more rows of A than a layer has inputs."""
        width, needed = (
            min(layer.A.shape[2] for layer in lora_layers(self.run.model)),
            self.rank * tasks,
        )
        if needed <= width:
            return
        full = (
            f"strategy.rank={self.rank}: {tasks} tasks of that rank need {needed} orthogonal directions, "
            f"and a layer's input has {width}"
        )
        require(self.init != "null_space", f"{full}. Use a lower rank, or strategy.init=kaiming.")
        warnings.warn(f"{full}: the last tasks cannot be orthogonal to the others.", stacklevel=2)

    def penalty(self) -> Tensor:
        layers = list(lora_layers(self.run.model))
        products = [layer.old_A @ layer.A.mT for layer in layers]
        entries = [p.abs() if self.norm == "l1" else p.square() for p in products]
        orthogonality = torch.stack([entry.sum() for entry in entries]).sum()
        if self.normalise:
            orthogonality = orthogonality / sum(len(layer.blocks) for layer in layers)
        self.log("orthogonality", orthogonality)
        penalty = self.orthogonality * orthogonality
        if self.decay:
            factors = [factor for layer in layers for factor in (layer.A, layer.B)]
            norms = torch.cat([factor.norm(dim=(1, 2)) for factor in factors])
            penalty = penalty + self.decay * norms.sum()
        return penalty

    def after_experience(self, experience: Experience) -> None:
        layers = list(lora_layers(self.run.model))
        overlaps = [row_space_overlap(layer.old_A, layer.A.detach()) for layer in layers]
        self.log("overlap", torch.stack(overlaps).mean())
        for layer in layers:
            layer.keep(merge=self.merge)
