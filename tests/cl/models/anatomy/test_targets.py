"""Targets are roles or names: which layers they mean, and that what is put in their place is used."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from cl.errors import ConfigurationError
from cl.models.anatomy import find_targets
from cl.models.lora import LoRALayer, inject_lora
from cl.models.subspace import HeldBlock, HeldFactors, SubspaceLayer, inject_subspaces
from tests.cl.models.anatomy.networks import TEXT, TIMM, WORDS, create
from tests.cl.models.toy import vit

TRANSFORMERS = [name for name in TIMM if name.startswith(("vit", "deit", "eva", "beit", "swin"))]


def by_name(network: nn.Module, end: str) -> list[str]:
    """As targets were found before there were roles: the end of the name of a linear layer or convolution."""
    kinds = (nn.Linear, nn.Conv2d)
    named = network.named_modules()
    return [n for n, m in named if isinstance(m, kinds) and f".{n}".endswith(f".{end}")]


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("word", ["qkv", "attn.qkv", "fc1", "mlp.fc2", "proj", "conv2", "conv_pw"])
def test_a_name_means_what_it_meant(name: str, word: str) -> None:
    network = create(name)
    expected = by_name(network, word)
    if expected:
        found = find_targets(network, [word])
        assert list(found) == expected
        assert all(target.rows is None for target in found.values())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_roles_in_every_vision_transformer(name: str) -> None:
    network = create(name)
    found = find_targets(network, ["q", "v"])
    for layer, target in found.items():
        if target.rows is None:
            assert layer.endswith(("q_proj", "v_proj"))
        else:
            third = target.layer.out_features // 3
            assert target.rows == (slice(0, third), slice(2 * third, 3 * third))
    blocks = 5 if name.startswith("swin") else 2
    assert len(found) == blocks * (2 if name == "eva02_base_patch14_224" else 1)
    assert len(find_targets(network, ["attention", "mlp"])) >= 4 * blocks


@pytest.mark.parametrize("name", TEXT)
def test_roles_in_every_language_model(name: str) -> None:
    network = TEXT[name]()
    found = find_targets(network, ["q", "v"])
    assert len(found) == (2 if name == "GPT-2" else 4)
    assert find_targets(network, ["qkv"]).keys() >= found.keys()
    ends = {n.rpartition(".")[2] for n in find_targets(network, ["mlp"])}
    assert ends <= {"dense", "lin1", "lin2", "c_fc", "c_proj", "gate_proj", "up_proj", "down_proj"}
    assert not any("pool" in n or "head" in n for n in find_targets(network, ["attention", "mlp"]))


def test_roles_and_names_of_the_same_layer_are_one_layer() -> None:
    network = vit()
    rows = find_targets(network, ["attn.qkv:q,v"])
    assert find_targets(network, ["q", "v"]) == rows
    assert find_targets(network, ["q", "attn.qkv:v", "q"]) == rows
    assert find_targets(network, ["v", "q"])["blocks.0.attn.qkv"].chosen == [0, 2]
    whole = find_targets(network, ["q", "qkv"])["blocks.0.attn.qkv"]
    assert (whole.rows, whole.parts, whole.chosen) == (None, 3, [0, 1, 2])
    assert len(inject_lora(network, ["q", "v", "fc1"], 2, 2)) == 6
    with pytest.raises(ConfigurationError, match="neither a role"):
        find_targets(network, ["fc1.base"])


def test_what_a_target_may_not_be() -> None:
    with pytest.raises(
        ConfigurationError, match=r"(?s)gates is neither.*Did you mean gate.*down, g"
    ):
        find_targets(TEXT["Llama"](), ["gates"])
    with pytest.raises(ConfigurationError, match=r"which rows of stages\.0\.blocks"):
        find_targets(create("levit_128s"), ["qkv.linear:q"])
    coatnet = nn.Module()
    coatnet.stages = nn.ModuleList([nn.Module()])
    coatnet.stages[0].blocks = nn.ModuleList([nn.Module()])
    coatnet.stages[0].blocks[0].attn = nn.Module()
    coatnet.stages[0].blocks[0].attn.qkv = nn.Linear(4, 12)
    assert list(find_targets(coatnet, ["qkv"])) == ["stages.0.blocks.0.attn.qkv"]
    with pytest.raises(ConfigurationError, match="no table says which rows"):
        find_targets(coatnet, ["attn.qkv:q,v"])
    attention = nn.Module()
    attention.attn = nn.MultiheadAttention(4, 2)
    with pytest.raises(ConfigurationError, match="MultiheadAttention, which reads the weight"):
        inject_lora(attention, ["out_proj"], 2, 2)


@pytest.mark.parametrize("name", [*TRANSFORMERS, "convnext_atto", "resnet18", "mobilenetv2_050"])
def test_a_low_rank_layer_is_used_and_does_what_its_merged_weight_does(name: str) -> None:
    """EVA, BEiT and Swin v2 read the weight of qkv: they are told to call it."""
    network = create(name)
    for parameter in network.parameters():
        if (
            parameter.dim() == 1
        ):  # scales of layers begin so small, or at 0, that they hide everything
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    plain = deepcopy(network)
    before = deepcopy(network)
    side = TIMM[name].get("img_size", 64)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    targets = ["conv"] if name in ("resnet18", "mobilenetv2_050") else ["mlp"]
    targets = ["q", "k", "v", "output", "mlp"] if name in TRANSFORMERS else targets
    layers = inject_lora(network, targets, 2, 2)
    for index, layer in enumerate(layers):
        layer.reset(torch.Generator().manual_seed(index))
    with torch.no_grad():
        torch.testing.assert_close(network(images), plain(images), rtol=1e-4, atol=1e-5)
    for layer in layers:
        torch.nn.init.normal_(layer.B, std=0.3)
    found = torch.autograd.grad(network(images).sum(), [layer.B for layer in layers])
    assert all(gradient.any() for gradient in found)
    names = {module: name for name, module in network.named_modules()}
    for layer in layers:
        plain.get_submodule(names[layer]).load_state_dict(layer.merged_state())
    with torch.no_grad():
        assert not torch.allclose(network(images), before(images), rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(network(images), plain(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("targets", [["q", "v"], ["qkv", "mlp"]])
def test_transposed_weights_of_gpt2(targets: list[str]) -> None:
    torch.manual_seed(0)
    network, ids = TEXT["GPT-2"]().double(), torch.randint(WORDS, (3, 6))
    plain, before = deepcopy(network), network(ids).detach()
    layers = inject_lora(network, targets, 2, 4)
    for layer in layers:
        layer.reset(torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(ids), before)
    for layer in layers:
        torch.nn.init.normal_(layer.B)
    assert not torch.allclose(network(ids), before)
    for name, layer in network.named_modules():
        if isinstance(layer, LoRALayer):
            merged = layer.merged_state()
            k = merged["weight"][:, 8:16] - layer.base.weight[:, 8:16]
            assert not k.any() or targets != ["q", "v"], "q, k and v are columns here"
            plain.get_submodule(name).load_state_dict(merged)
    torch.testing.assert_close(network(ids), plain(ids))
    after = network(ids).detach()
    for layer in network.modules():
        if isinstance(layer, LoRALayer):
            layer.merge()
    torch.testing.assert_close(network(ids), after)


@pytest.mark.parametrize("kind", [HeldFactors, HeldBlock])
def test_subspaces_of_q_and_v_only_and_of_transposed_weights(
    kind: type[HeldFactors | HeldBlock],
) -> None:
    torch.manual_seed(0)
    network, ids = TEXT["GPT-2"]().double(), torch.randint(WORDS, (3, 6))
    before, weight = network(ids).detach(), network.h[0].attn.c_attn.weight.detach().clone()
    layers = inject_subspaces(network, ["q", "v", "fc1"], kind)
    assert [len(layer.matrices) for layer in layers] == [2, 1, 2, 1]
    for layer in layers:
        layer.decompose([3] * len(layer.matrices))
        assert len(layer.weights()) == len(layer.matrices)
    torch.testing.assert_close(network(ids), before)
    for layer in layers:
        for part in layer.matrices:
            for parameter in part.parameters():
                torch.nn.init.normal_(parameter)
    after = network(ids).detach()
    for layer in layers:
        layer.merge()
    torch.testing.assert_close(network(ids), after)
    now = network.h[0].attn.c_attn.base.weight
    assert now.shape == weight.shape
    assert torch.equal(now[:, 8:16], weight[:, 8:16])
    assert not torch.isclose(now[:, :8], weight[:, :8]).any(0).all()
    assert isinstance(network.h[0].mlp.c_fc, SubspaceLayer)
