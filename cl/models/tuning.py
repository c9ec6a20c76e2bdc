"""Two light ways to tune a frozen timm ViT: scaled and shifted features (SSF), and visual prompts (VPT)."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Generator, Tensor, nn

from cl.errors import PalimpsestError, require
from cl.models.anatomy import plain_layers
from cl.models.prompts import CANNOT_EXPORT, frozen_vit

DEVIATION = 0.02


class ScaledFeatures(nn.Module):
    """A layer and what SSF does to its output:  y = γ ⊙ base(x) + β, a number of each per channel."""

    def __init__(self, base: nn.Module, generator: Generator) -> None:
        super().__init__()
        channels = len(base.get_parameter("weight"))
        self.base = base
        self.scale = nn.Parameter(1 + DEVIATION * torch.randn(channels, generator=generator))
        self.shift = nn.Parameter(DEVIATION * torch.randn(channels, generator=generator))

    def merged_state(self) -> dict[str, Tensor]:
        """The state of the plain layer that does the same:  γ (W x + b) + β = (γ W) x + (γ b + β)."""
        weight, scale = self.base.get_parameter("weight").detach(), self.scale.detach()
        bias = getattr(self.base, "bias", None)
        shift = self.shift.detach() if bias is None else scale * bias.detach() + self.shift.detach()
        return {"weight": weight * scale.view(-1, *[1] * (weight.dim() - 1)), "bias": shift}

    def forward(self, x: Tensor) -> Tensor:
        """As the layer: B × tokens × channels, or B × channels × height × width."""
        y: Tensor = self.base(x)
        shape = (-1, 1, 1) if y.dim() == 4 else (-1,)
        return y * self.scale.view(shape) + self.shift.view(shape)


class PromptedBlock(nn.Module):
    """A block with prompt tokens behind its input; the last `dropped` tokens of its output are left out."""

    def __init__(self, base: nn.Module, prompt: nn.Parameter | None, dropped: int) -> None:
        super().__init__()
        self.base, self.prompt, self.dropped = base, prompt, dropped

    def merged_state(self) -> dict[str, Tensor]:
        """There is none: a plain timm model has no prompts."""
        raise PalimpsestError(CANNOT_EXPORT)

    def forward(self, x: Tensor, **options: object) -> Tensor:
        """B × tokens × width; the tokens grow by the prompt and shrink by `dropped`."""
        if self.prompt is not None:
            x = torch.cat([x, self.prompt.expand(len(x), -1, -1)], dim=1)
        y: Tensor = self.base(x, **options)
        return y[:, : y.shape[1] - self.dropped]


def inject_scale_shift(backbone: nn.Module, generator: Generator) -> None:
    """Freeze a timm ViT and scale and shift the output of every layer with weights, in place.

    γ starts from N(1, 0.02²), β from N(0, 0.02²). Source: Lian et al. (2022).
    """
    vit = frozen_vit(backbone)
    for name in plain_layers(vit):
        vit.set_submodule(name, ScaledFeatures(vit.get_submodule(name), generator))


def inject_visual_prompts(backbone: nn.Module, length: int, deep: bool) -> None:
    """Freeze a timm ViT and put `length` prompt tokens, which start at zero, behind its sequence, in place.

    deep: every block has tokens of its own, which its output leaves out; else those of the first block go
    through all of them. Source: Jia et al. (2022).
    """
    require(length >= 1, f"strategy.prompts={length}: it must be at least 1.")
    vit = frozen_vit(backbone)
    last = len(vit.blocks) - 1
    for index, block in enumerate(vit.blocks):
        own = nn.Parameter(torch.zeros(1, length, vit.embed_dim)) if deep or index == 0 else None
        vit.blocks[index] = PromptedBlock(block, own, length if deep or index == last else 0)


def sharing_copy(backbone: nn.Module) -> nn.Module:
    """The same network in evaluation mode, with the very same parameters: layers can be replaced in one."""
    shared = {id(parameter): parameter for parameter in backbone.parameters()}
    return deepcopy(backbone, shared).eval()
