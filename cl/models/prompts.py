"""Prompts for a frozen timm ViT: tokens put before the patches, or prefixes of keys and values.

The prompts themselves belong to the method; here is where they enter. Each image has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cl.errors import PalimpsestError, require
from cl.models.anatomy import plain_vit


@dataclass
class Slot:
    """What a pass puts in at one place: None, or a tensor with a leading dimension for the images."""

    content: Tensor | None = None


class TokenPrompt(nn.Module):
    """Puts B × n × width tokens behind the class token (and other prefix tokens) of the sequence."""

    def __init__(self, base: nn.Module, before: int) -> None:
        super().__init__()
        self.base, self.before, self.slot = base, before, Slot()

    def merged_state(self) -> dict[str, Tensor]:
        """There is none: a plain timm model has no prompts."""
        raise PalimpsestError(CANNOT_EXPORT)

    def forward(self, x: Tensor) -> Tensor:
        """B × tokens × width to B × (tokens + n) × width."""
        tokens = self.slot.content
        if tokens is not None:
            x = torch.cat([x[:, : self.before], tokens.to(x), x[:, self.before :]], dim=1)
        out: Tensor = self.base(x)
        return out


class PrefixAttention(nn.Module):
    """A timm attention whose keys and values may have a prefix: K ← [p_K; K], V ← [p_V; V].

    The prefix is B × 2 × n × width; the queries and so the length of the sequence stay as they are.
    """

    def __init__(self, base: Attention) -> None:
        super().__init__()
        self.base, self.slot = base, Slot()

    def merged_state(self) -> dict[str, Tensor]:
        """There is none: a plain timm model has no prompts."""
        raise PalimpsestError(CANNOT_EXPORT)

    def forward(self, x: Tensor, **options: object) -> Tensor:
        """B × tokens × width to the same shape."""
        base, prefix = self.base, self.slot.content
        if prefix is None:
            plain: Tensor = base(x, **options)
            return plain
        q, k, v = self.heads(base.qkv(x).unflatten(2, (3, -1)).permute(2, 0, 1, 3))
        p_k, p_v = self.heads(prefix.to(x).transpose(0, 1))
        q, k = base.q_norm(q), base.k_norm(k)
        k, v = torch.cat([p_k.to(k), k], dim=2), torch.cat([p_v.to(v), v], dim=2)
        drop = base.attn_drop.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        out: Tensor = base.proj_drop(base.proj(y.transpose(1, 2).flatten(2)))
        return out

    def heads(self, x: Tensor) -> Tensor:
        """m × B × tokens × width to m × B × heads × tokens × width of a head."""
        return x.reshape(*x.shape[:3], int(self.base.num_heads), -1).transpose(2, 3)


CANNOT_EXPORT = (
    "A plain timm model has no place for prompts. Use the learner's own format (`Learner.save`)."
)


def inject_token_prompt(backbone: nn.Module) -> TokenPrompt:
    """Freeze a timm ViT and make a place for prompt tokens behind its class token."""
    vit = frozen_vit(backbone)
    prompt = TokenPrompt(vit.patch_drop, vit.num_prefix_tokens)
    vit.patch_drop = prompt
    return prompt


def inject_prefixes(backbone: nn.Module, layers: Sequence[int]) -> list[PrefixAttention]:
    """Freeze a timm ViT and make a place for prefixes in the attention of `layers`, counted from 0.

    Layers that the backbone does not have are left out; one at least must exist.
    """
    vit = frozen_vit(backbone)
    chosen = existing(layers, len(vit.blocks))
    for layer in chosen:
        vit.blocks[layer].attn = PrefixAttention(vit.blocks[layer].attn)
    return [vit.blocks[layer].attn for layer in chosen]


def existing(layers: Sequence[int], depth: int) -> list[int]:
    """Those of `layers` that a backbone of `depth` blocks has."""
    chosen = [layer for layer in layers if 0 <= layer < depth]
    require(bool(chosen), f"strategy: layers {list(layers)}, but the backbone has 0 … {depth - 1}.")
    return chosen


@contextmanager
def prompted(
    places: Sequence[TokenPrompt | PrefixAttention], contents: Sequence[Tensor]
) -> Iterator[None]:
    """Within the block, passes have these prompts at these places; before and after it none."""
    try:
        for place, content in zip(places, contents, strict=True):
            place.slot.content = content
        yield
    finally:
        for place in places:
            place.slot.content = None


def prompt_outputs(
    backbone: nn.Module, images: Tensor, prompt: TokenPrompt, tokens: Tensor
) -> Tensor:
    """The mean of the outputs at the prompt tokens, B × width. tokens: B × n × width.

    As in the official code they get the position of the class token, so that the patches keep theirs.
    """
    vit = plain_vit(backbone)
    if vit.pos_embed is not None and not vit.no_embed_class:
        tokens = tokens + vit.pos_embed[:, :1]
    with prompted([prompt], [tokens]):
        sequence = vit.forward_features(images)
    features: Tensor = vit.fc_norm(sequence[:, prompt.before :][:, : tokens.shape[1]].mean(1))
    return features


def uniform(shape: Sequence[int], generator: Generator) -> Tensor:
    """U(−1, 1), as the official codes start prompts and keys."""
    return torch.rand(*shape, generator=generator) * 2 - 1


def frozen_vit(backbone: nn.Module) -> VisionTransformer:
    """The backbone, frozen, which must be a timm ViT with plain attention; else a ConfigurationError."""
    return plain_vit(backbone).requires_grad_(False)
