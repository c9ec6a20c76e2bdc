"""Low-rank adaptation of layers (LoRA; Hu et al., 2022), with frozen slots for earlier tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cl.errors import require
from cl.models.anatomy import find_targets, replace_layer
from cl.models.matrices import MatrixLayer, as_matrix, as_weight, mix, multiply


class LoRALayer(nn.Module):
    """y = x Wᵀ + s · x A_oldᵀ B_oldᵀ + s · dropout(x) Aᵀ Bᵀ, with W, A_old and B_old frozen.

    Only some blocks of the layer's output rows may be adapted, each with its own A and B: of a fused
    qkv layer, for instance, the q rows and the v rows. Of a convolution x is each patch, and `in` is
    channels · height · width of the kernel.

    A: blocks × rank × in and B: blocks × rows × rank are the current task's, s = alpha / rank.
    old_A: blocks × R × in and old_B: blocks × rows × R are the earlier tasks', one beside the other.
    After `keep(merge=True)` old_B lacks the tasks that were folded into W.
    """

    old_A: Tensor
    old_B: Tensor

    def __init__(
        self,
        base: MatrixLayer,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        blocks: Sequence[slice] | None = None,
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.out, width = as_matrix(base).shape
        self.blocks = tuple(blocks or (slice(0, self.out),))
        self.rank, self.scale, self.dropout = rank, alpha / rank, dropout
        count, rows = len(self.blocks), self.blocks[0].stop - self.blocks[0].start
        new = base.weight.detach().new_zeros
        self.A = nn.Parameter(new(count, rank, width))
        self.B = nn.Parameter(new(count, rows, rank))
        self.register_buffer("old_A", new(count, 0, width))
        self.register_buffer("old_B", new(count, rows, 0))
        self._add_tensors()

    def _add_tensors(self) -> None:
        """What another kind of layer has besides; called once, when all of the above is there."""

    def reset(self, generator: Generator) -> None:
        """Start a new task: A Kaiming-uniform (a = √5, so ±1/√in), B zero; the output is unchanged."""
        bound = 1 / math.sqrt(self.A.shape[2])
        self.A.data.copy_((torch.rand(self.A.shape, generator=generator) * 2 - 1) * bound)
        self.B.data.zero_()

    def keep(self, merge: bool = False) -> None:
        """Freeze the current task's factors, or `merge` them into W and keep only A; same output."""
        if merge:
            self.merge()
        else:
            self.old_B = torch.cat([self.old_B, self.B.detach()], dim=2)
        self.old_A = torch.cat([self.old_A, self.A.detach()], dim=1)
        self.B.data.zero_()

    def merge(self) -> None:
        """Fold the current task's factors into W and keep nothing of them; same output."""
        self.base.weight.data += self.delta(*self.factors())
        self.B.data.zero_()

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B of the current task, as they enter the weight."""
        return self.A, self.B

    def old_factors(self) -> tuple[Tensor, Tensor]:
        """A and B of the earlier tasks, as they enter the weight."""
        return self.old_A, self.old_B

    def delta(self, A: Tensor, B: Tensor) -> Tensor:
        """The change of the weight by these factors: s · B A in their rows, of the weight's shape."""
        change = self.scale * self._spread(B) @ A.flatten(0, 1)
        return as_weight(self.base, change.detach())

    def merged_state(self) -> dict[str, Tensor]:
        """The state of the plain layer that does the same."""
        weight = self.base.weight.detach() + self.delta(*self.factors())
        if self.old_B.shape[2]:
            weight = weight + self.delta(*self.old_factors())
        bias = self.base.bias
        return {"weight": weight} if bias is None else {"weight": weight, "bias": bias.detach()}

    def forward(self, x: Tensor) -> Tensor:
        """What the plain layer takes, to what it gives."""
        y: Tensor = self.base(x)
        if self.old_B.shape[2]:
            y = y + self._low_rank(x, *self.old_factors())
        return y + self._low_rank(F.dropout(x, self.dropout, self.training), *self.factors())

    def _low_rank(self, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return self.scale * mix(self.base, multiply(self.base, x, A.flatten(0, 1)), self._spread(B))

    def _spread(self, B: Tensor) -> Tensor:
        """B of all blocks, each in its rows of the layer: out × (blocks · R)."""
        columns = [
            F.pad(factor, (0, 0, block.start, self.out - block.stop))
            for block, factor in zip(self.blocks, B, strict=True)
        ]
        return torch.cat(columns, dim=1)


class GatedLoRALayer(LoRALayer):
    """A LoRA layer whose rank-one terms have a trained weight each: s · Σ_j gate_j B_j A_j.

    gate: blocks × rank. A term whose gate is 0 adds nothing, so the gates decide about the rank.
    """

    def _add_tensors(self) -> None:
        self.gate = nn.Parameter(self.A.detach().new_ones(len(self.blocks), self.rank))

    def reset(self, generator: Generator) -> None:
        """Start a new task: gates from N(0, 1), A and B as in any LoRA."""
        super().reset(generator)
        self.gate.data.copy_(torch.randn(self.gate.shape, generator=generator))

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.gate.unsqueeze(2) * self.A, self.B


class ScaledLoRALayer(LoRALayer):
    """A LoRA layer whose earlier tasks keep a trained magnitude: Σ_{i<t} α_i D_i + α_t B_t A_t.

    D_i is B_i A_i divided by a norm. magnitudes: α, one number per task including the current one. All
    layers share it, so it belongs to the model, and a layer only refers to it.
    old_task: the task of each column of old_B.
    """

    magnitudes: nn.Parameter
    old_task: Tensor

    def _add_tensors(self) -> None:
        self.register_buffer("old_task", torch.zeros(0, dtype=torch.int64))

    def share(self, magnitudes: nn.Parameter) -> None:
        """Tell the layer where the magnitudes are."""
        object.__setattr__(self, "magnitudes", magnitudes)  # nn.Module would adopt it

    def keep_direction(self, task: int, product: bool = False) -> None:
        """Freeze the current factors of `task`, divided by ‖B‖_F ‖A‖_F of each block, or by ‖B A‖_F."""
        A, B = self.A.detach(), self.B.detach()
        length = A.norm(dim=(1, 2), keepdim=True)
        change = B @ A if product else B * length
        norm = change.norm(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(B.dtype).tiny)
        self.old_A = torch.cat([self.old_A, A / length], dim=1)
        self.old_B = torch.cat([self.old_B, B * length / norm], dim=2)
        self.old_task = torch.cat([self.old_task, self.old_task.new_full((A.shape[1],), task)])

    def resize(self, rank: int) -> None:
        """Give the current factors another rank."""
        self.A.data = self.A.data.new_zeros(len(self.A), rank, self.A.shape[2])
        self.B.data = self.B.data.new_zeros(len(self.B), self.B.shape[1], rank)

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.A, self.magnitudes[-1] * self.B

    def old_factors(self) -> tuple[Tensor, Tensor]:
        return self.old_A, self.old_B * self.magnitudes[self.old_task]


LoRA = TypeVar("LoRA", bound=LoRALayer)


def inject_lora(
    module: nn.Module,
    targets: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    kind: type[LoRA] = LoRALayer,  # type: ignore[assignment]
) -> list[LoRA]:
    """Replace the layers that `targets` mean by LoRA layers, in place; returns these, in the module's order.

    targets: roles or ends of names, see `cl.models.anatomy.find_targets`, which also says what is wrong.
    """
    require(rank >= 1, f"rank={rank}: it must be at least 1.")
    injected = set()
    for name, target in find_targets(module, targets).items():
        lora = kind(target.layer, rank, alpha, dropout, target.rows)
        replace_layer(module, name, lora)
        injected.add(lora)
    return [layer for layer in module.modules() if layer in injected]


def lora_layers(module: nn.Module) -> Iterator[LoRALayer]:
    """The LoRA layers of a module, in order."""
    return (layer for layer in module.modules() if isinstance(layer, LoRALayer))
