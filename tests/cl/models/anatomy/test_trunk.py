"""The trunk: what embeds, the blocks, what reads out; and a ViT as the chain that it is."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cl.errors import ConfigurationError
from cl.models.adapters import inject_adapters
from cl.models.anatomy import Chain, plain_blocks, plain_layers, plain_vit, trunk_of
from cl.models.lora import inject_lora
from cl.models.prompts import inject_prefixes
from tests.cl.models.anatomy.networks import TEXT, TIMM, create
from tests.cl.models.toy import vit

BLOCKS = {"swin": 5, "convnext": 12, "resnet18": 8, "levit": 9}
BLOCKS |= {"mobilenetv2": 17, "mobilenetv3": 12, "efficientnet": 16}


@pytest.mark.parametrize("name", TIMM)
def test_a_trunk_has_all_weights_but_those_between_stages(name: str) -> None:
    network = create(name)
    trunk = trunk_of(network)
    assert trunk is not None
    expected = next((n for start, n in BLOCKS.items() if name.startswith(start)), 2)
    assert len(trunk.blocks) == expected
    assert trunk.staged == (expected != 2)
    parts = nn.ModuleList([*trunk.embed, *trunk.blocks, *trunk.readout])
    inside = {id(p) for p in parts.parameters()}
    left = [name for name, p in network.named_parameters() if id(p) not in inside]
    own = dict(network.named_parameters(recurse=False))
    assert all("downsample" in weight or weight in own for weight in left), left
    assert not {id(m) for m in trunk.embed} & {id(m) for m in trunk.readout}


def test_the_parts_of_a_vit_and_of_bert() -> None:
    network = vit()
    trunk = trunk_of(network)
    assert trunk is not None
    assert trunk.embed == [
        network.patch_embed,
        network.pos_drop,
        network.patch_drop,
        network.norm_pre,
    ]
    assert trunk.readout == [network.norm, network.fc_norm, network.head_drop, network.head]
    bert = TEXT["RoBERTa"]()
    trunk = trunk_of(bert)
    assert trunk is not None
    assert trunk.embed == [bert.roberta.embeddings]
    assert trunk.blocks == list(bert.roberta.encoder.layer)
    assert trunk.readout == [bert.roberta.pooler, bert.classifier]
    assert trunk_of(nn.Sequential(nn.Linear(3, 3))) is None


def test_the_blocks_are_found_with_adapters_around_and_inside_them() -> None:
    network = vit()
    inject_lora(network, ["q"], 2, 2)
    inject_adapters(network, 2)
    trunk = trunk_of(network)
    assert trunk is not None
    assert trunk.blocks == list(network.blocks)


NAMES = ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_224"]
NAMES += ["vit_medium_patch16_reg4_gap_256"]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_chain_does_what_the_network_does(name: str) -> None:
    network, images = create(name), torch.randn(2, 3, 32, 32)
    chain = Chain.of(network)
    assert chain is not None
    tokens = chain.tokens(images)
    for block in chain.blocks:
        tokens = block(tokens)
    assert torch.equal(chain.features(tokens), network(images))


def test_what_is_no_chain_and_no_plain_vit() -> None:
    class Longer(VisionTransformer):
        def forward_features(self, images: Tensor) -> Tensor:
            tokens: Tensor = super().forward_features(images)
            return tokens.repeat(1, 2, 1)

    longer = Longer(img_size=32, embed_dim=24, depth=1, num_heads=2)
    for network in (longer, create("eva02_tiny_patch14_224"), create("resnet18")):
        assert Chain.of(network) is None
    for name in ("eva02_tiny_patch14_224", "resnet18"):
        with pytest.raises(ConfigurationError, match="prompts need a plain timm vision"):
            plain_vit(create(name))
        with pytest.raises(ConfigurationError, match="bottleneck adapters need a plain"):
            plain_blocks(create(name))
    network = vit()
    inject_prefixes(network, [1])
    assert plain_vit(network) is network
    assert len(plain_layers(vit())) == 2 + 3 * 6
