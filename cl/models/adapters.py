"""Bottleneck adapters beside the MLP of every block of a timm ViT (AdaptFormer; Chen et al., 2022).

An adapter is trained, kept, and trained again; the kept ones are the slots. At test time a batch can go
through several slots at once, or every image through a slot of its own, in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cl.errors import PalimpsestError, require
from cl.models.anatomy import plain_blocks

BARE = -1
"""The slot that is no adapter at all: the backbone as it was pretrained."""


SLOTS_AT_ONCE = 8
"""More of them at a time save little and cost memory: activations are that many times a batch's."""


@dataclass
class Selection:
    """Which slots a pass goes through; shared by all adapters of a backbone.

    slots: None for the adapter in training; else int64, C × P: the first adapted block makes C copies of
    the batch, and in each of them there is a slot for each of P equal parts.
    """

    slots: Tensor | None = None


class Adapter(nn.Module):
    """Ad(x) = scale · (ReLU(x Dᵀ + d) Uᵀ + u), with dropout on the bottleneck in training.

    down (D): r × width, down_bias (d): r, up (U): width × r, up_bias (u): width, in training. The slots that
    were kept are buffers of the same names with `kept_` in front and a leading dimension.
    """

    TENSORS = ("down", "down_bias", "up", "up_bias")

    def __init__(
        self, width: int, bottleneck: int, scale: float, dropout: float, selection: Selection
    ) -> None:
        super().__init__()
        self.scale, self.dropout, self.selection = scale, dropout, selection
        shapes = ((bottleneck, width), (bottleneck,), (width, bottleneck), (width,))
        for name, shape in zip(self.TENSORS, shapes, strict=True):
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
            self.register_buffer(f"kept_{name}", torch.zeros(0, *shape))

    @property
    def slots(self) -> int:
        """How many adapters have been kept."""
        return len(self.kept("down"))

    def kept(self, name: str) -> Tensor:
        """The kept tensors of that name: slots × its shape."""
        return self.get_buffer(f"kept_{name}")

    @torch.no_grad()
    def reset(self, generator: Generator) -> None:
        """Start anew: D Kaiming-uniform (a = √5, so ±1/√width), all else zero; it then adds nothing."""
        for name in self.TENSORS:
            self.get_parameter(name).zero_()
        down = self.get_parameter("down")
        bound = 1 / math.sqrt(down.shape[1])
        down.copy_((torch.rand(down.shape, generator=generator) * 2 - 1) * bound)

    @torch.no_grad()
    def keep(self) -> None:
        """Copy what has been trained into a new slot."""
        for name in self.TENSORS:
            new = self.get_parameter(name).detach()[None]
            setattr(self, f"kept_{name}", torch.cat([self.kept(name), new]))

    @torch.no_grad()
    def pull(self, share: float) -> None:
        """A ← (1 − share) A + share · (mean over the kept slots): for each of the four tensors."""
        if self.slots:
            for name in self.TENSORS:
                self.get_parameter(name).lerp_(self.kept(name).mean(0), share)

    def weights(self) -> list[Tensor]:
        """The four tensors of the slots of this pass, each with a leading dimension for the slots."""
        slots = self.selection.slots
        if slots is None:
            return [self.get_parameter(name)[None] for name in self.TENSORS]
        slots = slots.flatten()
        down, down_bias, up, up_bias = (self.kept(name)[slots] for name in self.TENSORS)
        adapted = (slots != BARE).to(up.dtype)
        return [down, down_bias, up * adapted[:, None, None], up_bias * adapted[:, None]]

    def forward(self, x: Tensor) -> Tensor:
        """What is to be added. B × tokens × width to the same shape."""
        down, down_bias, up, up_bias = self.weights()
        parts = x.reshape(len(down), -1, x.shape[-1])
        hidden = F.relu(torch.baddbmm(down_bias[:, None], parts, down.mT))
        hidden = F.dropout(hidden, self.dropout, self.training)
        added = torch.baddbmm(up_bias[:, None], hidden, up.mT).view(x.shape)
        return self.scale * added


class AdaptedBlock(nn.Module):
    """A timm block with an adapter beside its MLP:  x ← x + Attn(LN x);  x ← x + MLP(LN x) + Ad(x)."""

    def __init__(self, base: Block, adapter: Adapter, first: bool) -> None:
        super().__init__()
        self.base, self.adapter, self.first = base, adapter, first

    def merged_state(self) -> dict[str, Tensor]:
        """There is none: a bottleneck with a ReLU cannot be folded into the MLP."""
        raise PalimpsestError(
            "Bottleneck adapters cannot be merged into a plain timm model. "
            "Use the learner's own format (`Learner.save`)."
        )

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        """B × tokens × width; the first adapted block gives (C · B) × tokens × width."""
        base = self.base
        x = x + base.drop_path1(base.ls1(base.attn(base.norm1(x), **options)))
        y = x + base.drop_path2(base.ls2(base.mlp(base.norm2(x))))
        slots = self.adapter.selection.slots
        if self.first and slots is not None:
            x, y = x.repeat(len(slots), 1, 1), y.repeat(len(slots), 1, 1)
        out: Tensor = y + self.adapter(x)
        return out


def inject_adapters(
    backbone: nn.Module, bottleneck: int, scale: float = 0.1, dropout: float = 0.1
) -> list[Adapter]:
    """Freeze a timm ViT and put an adapter into each of its blocks, in place; returns these."""
    require(bottleneck >= 1, f"strategy.bottleneck={bottleneck}: it must be at least 1.")
    require(0 <= dropout < 1, f"strategy.dropout={dropout}: it must be in [0, 1).")
    blocks: Any = plain_blocks(backbone)
    backbone.requires_grad_(False)
    selection, adapters = Selection(), []
    for index, block in enumerate(blocks):
        width = block.norm2.weight.shape[0]
        adapters.append(Adapter(width, bottleneck, scale, dropout, selection))
        blocks[index] = AdaptedBlock(block, adapters[-1], first=index == 0)
    return adapters


def adapters_of(module: nn.Module) -> list[Adapter]:
    """The adapters of a module, in order."""
    return [layer for layer in module.modules() if isinstance(layer, Adapter)]


def reset_adapters(module: nn.Module, generator: Generator) -> None:
    """Start the adapters of a module anew, each with numbers of its own."""
    for adapter in adapters_of(module):
        adapter.reset(generator)


def features_of_slots(backbone: nn.Module, images: Tensor, slots: Sequence[int]) -> Tensor:
    """The features of every image through every one of `slots`: slots × B × features.

    One pass serves up to `SLOTS_AT_ONCE` slots; what comes before the first adapter is computed once.
    """
    parts = []
    for chosen in torch.split(torch.tensor(slots, device=images.device), SLOTS_AT_ONCE):
        with _through(backbone, chosen[:, None]):
            features: Tensor = backbone(images)
        parts.append(features.view(len(chosen), len(images), -1))
    return torch.cat(parts)


def features_of_own_slot(backbone: nn.Module, images: Tensor, slots: Tensor) -> Tensor:
    """The features of each image through its own slot: B × features. slots: int64, B."""
    with _through(backbone, slots[None]):
        features: Tensor = backbone(images)
    return features


@contextmanager
def _through(backbone: nn.Module, slots: Tensor) -> Iterator[None]:
    selection = next(m.selection for m in backbone.modules() if isinstance(m, Adapter))
    before, selection.slots = selection.slots, slots
    try:
        yield
    finally:
        selection.slots = before
