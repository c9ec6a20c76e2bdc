"""What each layer does, in timm's own networks and under the names that Transformers uses."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from cl.errors import PalimpsestError
from cl.models.adapters import inject_adapters
from cl.models.anatomy import ROLES, Anatomy
from cl.models.lora import inject_lora
from cl.models.tuning import inject_scale_shift
from tests.cl.models.anatomy.networks import TEXT, TIMM, create
from tests.cl.models.toy import vit


def roles(network: nn.Module) -> dict[str, str]:
    return {name: place.role for name, place in Anatomy(network).parameters.items()}


@pytest.mark.parametrize("name", TIMM)
def test_every_parameter_of_a_known_network_has_a_role(name: str) -> None:
    network = create(name)
    found = roles(network)
    assert found.keys() == dict(network.named_parameters()).keys()
    assert set(found.values()) <= set(ROLES), [n for n, r in found.items() if r not in ROLES]


@pytest.mark.parametrize("name", TEXT)
def test_every_parameter_of_a_language_model_has_a_role(name: str) -> None:
    assert set(roles(TEXT[name]()).values()) <= set(ROLES)


def count_in_a_block(network: nn.Module) -> Counter[str]:
    """How many matrices of each role the first block has."""
    anatomy = Anatomy(network)
    return Counter(
        anatomy.parameters[name].role
        for name, parameter in network.named_parameters()
        if anatomy.parameters[name].block == 0 and parameter.dim() > 1
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_tiny_patch16_224", "qkv output fc1 fc2"),
        ("deit_tiny_distilled_patch16_224", "qkv output fc1 fc2"),
        ("eva02_tiny_patch14_224", "qkv output fc1 fc2"),
        ("eva02_base_patch14_224", "q k v output gate up down"),
        ("beit_base_patch16_224", "qkv output fc1 fc2 embedding"),
        ("swin_tiny_patch4_window7_224", "qkv output fc1 fc2 embedding"),
        ("convnext_atto", "conv fc1 fc2"),
        ("resnet18", "conv conv"),
        ("mobilenetv2_050", "conv conv"),
        ("mobilenetv3_small_050", "conv conv conv conv"),
        ("levit_128s", "qkv output fc1 fc2 embedding"),
    ],
)
def test_the_matrices_of_a_block_of_a_vision_network(name: str, expected: str) -> None:
    assert count_in_a_block(create(name)) == Counter(expected.split())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BERT", "q k v output fc1 fc2"),
        ("RoBERTa", "q k v output fc1 fc2"),
        ("DistilBERT", "q k v output fc1 fc2"),
        ("GPT-2", "qkv output fc1 fc2"),
        ("Llama", "q k v output gate up down"),
    ],
)
def test_the_matrices_of_a_block_of_a_language_model(name: str, expected: str) -> None:
    assert count_in_a_block(TEXT[name]()) == Counter(expected.split())


def test_what_lies_outside_the_blocks() -> None:
    found = roles(create("deit_tiny_distilled_patch16_224"))
    outside = {name: role for name, role in found.items() if "blocks" not in name}
    embedding = ["cls_token", "pos_embed", "dist_token", "patch_embed.proj.weight"]
    assert all(outside.pop(name) == "embedding" for name in embedding)
    assert outside == {
        "patch_embed.proj.bias": "embedding",
        "norm.weight": "norm",
        "norm.bias": "norm",
    }
    text = roles(TEXT["RoBERTa"]())
    assert text["roberta.embeddings.word_embeddings.weight"] == "embedding"
    assert text["roberta.embeddings.LayerNorm.weight"] == "norm"
    assert text["roberta.pooler.dense.weight"] == "head"
    assert text["classifier.out_proj.bias"] == "head"
    assert roles(TEXT["Llama"]())["lm_head.weight"] == "head"
    pool = roles(create("vit_base_patch16_siglip_224"))
    assert pool["attn_pool.kv.weight"] == "head"
    assert pool["attn_pool.latent"] == "embedding"
    beit = roles(create("beit_base_patch16_224"))
    assert beit["blocks.1.attn.q_bias"] == "q"
    assert beit["blocks.1.gamma_1"] == "other"


def test_block_and_depth() -> None:
    places = Anatomy(vit()).parameters
    depths = {name: place.depth for name, place in places.items()}
    assert depths["cls_token"] == depths["patch_embed.proj.weight"] == 0
    assert [depths[f"blocks.{i}.mlp.fc2.weight"] for i in range(3)] == [1 / 4, 2 / 4, 3 / 4]
    assert depths["norm.weight"] == 1
    assert places["blocks.2.norm1.bias"].block == 2
    assert places["norm.bias"].block is None
    swin = Anatomy(create("swin_tiny_patch4_window7_224"))
    assert len(swin.blocks) == 5
    assert swin.parameters["layers.1.downsample.reduction.weight"].depth == 1 / 6
    assert swin.parameters["layers.1.blocks.0.norm1.weight"].depth == 2 / 6
    assert swin.parameters["layers.1.downsample.reduction.weight"].block is None
    assert Anatomy(TEXT["RoBERTa"]()).parameters["roberta.pooler.dense.weight"].depth == 1


@pytest.mark.parametrize("way", ["lora", "adapters", "scales"])
def test_adapters_are_seen_through(way: str) -> None:
    plain = Anatomy(vit()).parameters
    network = vit()
    if way == "lora":
        inject_lora(network, ["q", "output"], 2, 2)
    elif way == "adapters":
        inject_adapters(network, 2)
    else:
        inject_scale_shift(network, torch.Generator())
    adapted = Anatomy(network).parameters
    put_in = {name: place for name, place in adapted.items() if place.role == "adapter"}
    inside = {name.replace("base.", ""): place for name, place in adapted.items()}
    assert all(inside[name] == place for name, place in plain.items())
    assert len(adapted) == len(plain) + len(put_in)
    assert any(place.block == 2 for place in put_in.values())


def test_what_no_table_knows_is_an_error_and_never_a_convolution() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 4)))
    anatomy = Anatomy(network)
    for name in ("0.0", "0.1", "0.0.weight", "0.1.weight"):
        with pytest.raises(PalimpsestError, match=rf"no table says what {name} does .*ViT, Swin"):
            anatomy.role(name)
    assert anatomy.blocks == {}
    known = Anatomy(create("convnext_atto"))
    assert known.role("stages.0.blocks.0.conv_dw.weight") == "conv"
    assert known.category("stages.0.blocks.0.mlp.fc1") == "mlp"


def test_rows_of_a_fused_layer_are_known_only_where_q_k_and_v_lie_one_below_the_other() -> None:
    anatomy = Anatomy(create("beit_base_patch16_224"))
    assert anatomy.parts("blocks.0.attn.qkv") == {
        "q": slice(0, 24),
        "k": slice(24, 48),
        "v": slice(48, 72),
    }
    assert anatomy.parts("blocks.0.attn.proj") == {}
    assert Anatomy(create("levit_128s")).parts("stages.0.blocks.0.attn.qkv.linear") == {}
    assert Anatomy(TEXT["GPT-2"]()).parts("h.0.attn.c_attn")["k"] == slice(8, 16)
