"""A network as a chain of parts: what embeds, the blocks, and what reads out."""

from __future__ import annotations

from dataclasses import dataclass

from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from cl.errors import require
from cl.models.anatomy.places import Anatomy, is_adapter


@dataclass(frozen=True)
class Trunk:
    """The parts of a network, in order, each as large as possible.

    What lies between two blocks, such as the downsampling of a Swin, is in none of the three. staged: the
    blocks are of several widths.
    """

    embed: list[nn.Module]
    blocks: list[nn.Module]
    readout: list[nn.Module]
    staged: bool


def trunk_of(network: nn.Module) -> Trunk | None:
    """The trunk of a network, or None if no table knows its blocks."""
    anatomy = Anatomy(network)
    if anatomy.family is None:
        return None
    outermost = {plain: name for name, plain in reversed(anatomy.plain.items())}
    names = [outermost[plain] for plain in anatomy.blocks]
    ends: dict[float, list[nn.Module]] = {0.0: [], 1.0: []}
    taken: tuple[str, ...] = ()
    for name, place in anatomy.layers.items():
        holds_blocks = any(f"{block}.".startswith(f"{name}.") for block in names) or not name
        if holds_blocks or place.block is not None or name.startswith(taken):
            continue
        taken = (*taken, f"{name}.")
        ends.get(place.depth, []).append(anatomy.modules[name])
    blocks = [anatomy.modules[name] for name in names]
    return Trunk(ends[0.0], blocks, ends[1.0], anatomy.family.staged)


class Chain:
    """A timm ViT whose forward pass is just embed → blocks → readout, and these as functions."""

    def __init__(self, network: nn.Module) -> None:
        assert isinstance(network, VisionTransformer)
        self.network = network
        names = list(dict(network.named_children()))
        children, at = list(network.children()), names.index("blocks")
        self.embed, self.readout = children[:at], children[at + 1 :]
        self.blocks: list[nn.Module] = list(network.blocks)

    @classmethod
    def of(cls, network: nn.Module) -> Chain | None:
        """The chain that the network is, or None if it is none that is known."""
        if not isinstance(network, VisionTransformer):
            return None
        plain = type(network).forward_features is VisionTransformer.forward_features
        return cls(network) if plain else None

    def tokens(self, images: Tensor) -> Tensor:
        """What goes into the first block: B × 3 × S × S to B × T × D."""
        net = self.network
        tokens: Tensor = net._pos_embed(net.patch_embed(images))
        return net.norm_pre(net.patch_drop(tokens))  # type: ignore[no-any-return]

    def features(self, tokens: Tensor) -> Tensor:
        """What the network makes of the last block's output: B × T × D to B × features."""
        features: Tensor = self.network.forward_head(self.network.norm(tokens))
        return features


PLAIN_LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def plain_layers(vit: VisionTransformer) -> list[str]:
    """The names of the layers with weights of a plain ViT: the patches, the last norm, then the blocks'."""
    inside = [f"blocks.{i}.{name}" for i in range(len(vit.blocks)) for name in PLAIN_LAYERS]
    names = ["patch_embed.proj", "norm", *inside]
    return [name for name in names if not isinstance(vit.get_submodule(name), nn.Identity)]


def plain_vit(backbone: nn.Module) -> VisionTransformer:
    """The backbone, if it is a timm ViT with plain attention; ConfigurationError if not."""
    blocks = getattr(backbone, "blocks", ())
    require(
        isinstance(backbone, VisionTransformer) and all(has_plain_attention(b) for b in blocks),
        "backbone: prompts need a plain timm vision transformer, "
        "such as backbone=nano, vit_tiny, vit_small or vit_base.",
    )
    assert isinstance(backbone, VisionTransformer)
    return backbone


def has_plain_attention(block: nn.Module) -> bool:
    """Softmax attention with nothing between it and its projection; prefixes of ours do not count."""
    attention = block.get_submodule("attn")
    if is_adapter(attention):
        attention = attention.get_submodule("base")
    return (
        isinstance(attention, Attention)
        and getattr(attention, "gate", None) is None
        and isinstance(getattr(attention, "norm", nn.Identity()), nn.Identity)
    )


def plain_blocks(backbone: nn.Module) -> nn.Sequential:
    """The blocks of a timm ViT, if all are timm's own; ConfigurationError if not."""
    blocks = getattr(backbone, "blocks", ())
    require(
        len(blocks) > 0 and all(type(block) is Block for block in blocks),
        "backbone: bottleneck adapters need a plain timm vision transformer, "
        "such as backbone=nano, vit_tiny, vit_small or vit_base.",
    )
    assert isinstance(blocks, nn.Sequential)
    return blocks
