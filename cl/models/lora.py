"""Low-rank adaptation of linear layers (LoRA; Hu et al., 2022), with frozen slots for earlier tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cl.errors import require, suggest

QKV_PARTS = ("q", "k", "v")


class LoRALinear(nn.Module):
    """y = x Wᵀ + s · x A_oldᵀ B_oldᵀ + s · dropout(x) Aᵀ Bᵀ, with W, A_old and B_old frozen.

    Only some blocks of the layer's output rows may be adapted, each with its own A and B: of a fused
    qkv layer, for instance, the q rows and the v rows.

    A: blocks × rank × in and B: blocks × rows × rank are the current task's, s = alpha / rank.
    old_A: blocks × R × in and old_B: blocks × rows × R are the earlier tasks', one beside the other.
    After `keep(merge=True)` old_B lacks the tasks that were folded into W.
    """

    old_A: Tensor
    old_B: Tensor

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        blocks: Sequence[slice] | None = None,
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.blocks = tuple(blocks or (slice(0, base.out_features),))
        self.rank, self.scale, self.dropout = rank, alpha / rank, dropout
        count, rows = len(self.blocks), self.blocks[0].stop - self.blocks[0].start
        new = base.weight.detach().new_zeros
        self.A = nn.Parameter(new(count, rank, base.in_features))
        self.B = nn.Parameter(new(count, rows, rank))
        self.register_buffer("old_A", new(count, 0, base.in_features))
        self.register_buffer("old_B", new(count, rows, 0))

    def reset(self, generator: Generator) -> None:
        """Start a new task: A Kaiming-uniform (a = √5, so ±1/√in), B zero; the output is unchanged."""
        bound = 1 / math.sqrt(self.base.in_features)
        self.A.data.copy_((torch.rand(self.A.shape, generator=generator) * 2 - 1) * bound)
        self.B.data.zero_()

    def keep(self, merge: bool = False) -> None:
        """Freeze the current task's factors, or `merge` them into W and keep only A; same output."""
        if merge:
            self.base.weight.data += self.delta(self.A, self.B)
        else:
            self.old_B = torch.cat([self.old_B, self.B.detach()], dim=2)
        self.old_A = torch.cat([self.old_A, self.A.detach()], dim=1)
        self.B.data.zero_()

    def delta(self, A: Tensor, B: Tensor) -> Tensor:
        """The change of the weight by these factors: s · B A in their rows of an out × in matrix."""
        return (self.scale * self._spread(B) @ A.flatten(0, 1)).detach()

    def merged_state(self) -> dict[str, Tensor]:
        """The state of the plain linear layer that does the same."""
        weight = self.base.weight.detach() + self.delta(self.A, self.B)
        if self.old_B.shape[2]:
            weight = weight + self.delta(self.old_A, self.old_B)
        bias = self.base.bias
        return {"weight": weight} if bias is None else {"weight": weight, "bias": bias.detach()}

    def forward(self, x: Tensor) -> Tensor:
        """… × in to … × out."""
        y: Tensor = self.base(x)
        if self.old_B.shape[2]:
            y = y + self._low_rank(x, self.old_A, self.old_B)
        return y + self._low_rank(F.dropout(x, self.dropout, self.training), self.A, self.B)

    def _low_rank(self, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
        return self.scale * F.linear(F.linear(x, A.flatten(0, 1)), self._spread(B))

    def _spread(self, B: Tensor) -> Tensor:
        """B of all blocks, each in its rows of the layer: out × (blocks · R)."""
        out = self.base.out_features
        columns = [
            F.pad(factor, (0, 0, block.start, out - block.stop))
            for block, factor in zip(self.blocks, B, strict=True)
        ]
        return torch.cat(columns, dim=1)


def inject_lora(
    module: nn.Module, targets: Sequence[str], rank: int, alpha: float, dropout: float = 0.0
) -> list[LoRALinear]:
    """Replace the linear layers that `targets` name by LoRA layers, in place; returns these.

    A target is the end of a layer's name ("attn.proj", "mlp.fc1"); "attn.qkv:q,v" means only the
    q and v rows of a fused layer. Raises ConfigurationError if a target matches nothing.
    """
    require(rank >= 1, f"rank={rank}: it must be at least 1.")
    injected: list[LoRALinear] = []
    for target in targets:
        suffix, _, parts = target.partition(":")
        linear = {
            name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)
        }
        chosen = [name for name in linear if name == suffix or name.endswith(f".{suffix}")]
        ends = {".".join(name.split(".")[-2:]) for name in linear}
        require(bool(chosen), f"targets: no linear layer ends in {suffix}. {suggest(suffix, ends)}")
        for name in chosen:
            layer = linear[name]
            lora = LoRALinear(layer, rank, alpha, dropout, _qkv_blocks(layer, parts))
            module.set_submodule(name, lora)
            injected.append(lora)
    return injected


def lora_layers(module: nn.Module) -> Iterator[LoRALinear]:
    """The LoRA layers of a module, in order."""
    return (layer for layer in module.modules() if isinstance(layer, LoRALinear))


def _qkv_blocks(layer: nn.Linear, parts: str) -> list[slice] | None:
    if not parts:
        return None
    height = layer.out_features // 3
    names = [part.strip() for part in parts.split(",")]
    unknown = set(names) - set(QKV_PARTS)
    require(not unknown, f"targets: the parts of a fused layer are q, k and v, not {parts}.")
    require(layer.out_features % 3 == 0, "targets: q, k and v need a layer of three equal parts.")
    return [slice(i * height, (i + 1) * height) for i in map(QKV_PARTS.index, names)]
