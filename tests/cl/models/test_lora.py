"""LoRA on a plain and on a fused layer, against the formula written out."""

from __future__ import annotations

import pytest
import timm
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from cl.errors import ConfigurationError
from cl.models import nano
from cl.models.lora import LoRALayer, inject_lora


def filled(layer: LoRALayer, tasks: int, merge: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Learn `tasks` random tasks; returns the factors of each."""
    factors = []
    for task in range(tasks):
        layer.reset(torch.Generator().manual_seed(task))
        layer.B.data.normal_(std=0.1)
        factors.append((layer.A.data.clone(), layer.B.data.clone()))
        if task < tasks - 1:
            layer.keep(merge)
    return factors


def reference(
    layer: LoRALayer, weight: Tensor, factors: list[tuple[Tensor, Tensor]], x: Tensor
) -> Tensor:
    """x Wᵀ + Σ_i s x A_iᵀ B_iᵀ in float64, block by block."""
    y = x.double() @ weight.double().T + layer.base.bias.double()
    for A, B in factors:
        for block, a, b in zip(layer.blocks, A.double(), B.double(), strict=True):
            y[:, block] += layer.scale * x.double() @ a.T @ b.T
    return y


@pytest.mark.parametrize("blocks", [None, [slice(0, 4), slice(8, 12)]])
@pytest.mark.parametrize("merge", [False, True])
def test_forward_is_the_sum_of_all_tasks(blocks: list[slice] | None, merge: bool) -> None:
    torch.manual_seed(0)
    layer = LoRALayer(nn.Linear(6, 12), rank=2, alpha=8, blocks=blocks)
    weight = layer.base.weight.detach().clone()
    factors = filled(layer, 3, merge)
    x = torch.randn(5, 6)
    expected = reference(layer, weight, factors, x)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    plain = nn.Linear(6, 12)
    plain.load_state_dict(layer.merged_state())
    torch.testing.assert_close(plain(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_a_new_task_leaves_the_output_as_it_was() -> None:
    torch.manual_seed(0)
    base = nn.Linear(6, 12)
    x = torch.randn(5, 6)
    expected = base(x)
    layer = LoRALayer(base, rank=2, alpha=8)
    layer.reset(torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), expected)
    layer.B.data.normal_()
    trained = layer(x)
    layer.keep()
    torch.testing.assert_close(layer(x), trained)
    layer.reset(torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(x), trained)


def test_kaiming_bound_of_a_new_task() -> None:
    layer = LoRALayer(nn.Linear(64, 8), rank=4, alpha=4)
    layer.reset(torch.Generator().manual_seed(0))
    assert layer.A.abs().max() <= 1 / 8
    assert layer.A.abs().max() > 0.9 / 8
    assert not layer.B.any()


def test_old_factors_are_kept_bit_for_bit_and_are_not_trained() -> None:
    layer = LoRALayer(nn.Linear(6, 6), rank=2, alpha=4)
    factors = filled(layer, 2)
    assert torch.equal(layer.old_A, factors[0][0])
    assert torch.equal(layer.old_B, factors[0][1])
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"A", "B"}


def test_only_the_named_rows_of_a_fused_layer_change() -> None:
    model = timm.create_model(nano.NANO_NAME, num_classes=0, img_size=8).eval()
    layers = inject_lora(model, ["attn.qkv:q,v"], rank=2, alpha=4)
    assert len(layers) == len(model.blocks)
    layer = layers[0]
    layer.reset(torch.Generator().manual_seed(0))
    x = torch.randn(3, layer.base.in_features)
    before = layer(x)
    layer.B.data.normal_()
    changed = (layer(x) != before).any(0)
    width = layer.base.in_features
    assert changed[:width].all()
    assert not changed[width : 2 * width].any(), "the k rows are not adapted"
    assert changed[2 * width :].all()


def test_any_linear_layer_can_be_a_target() -> None:
    model = timm.create_model(nano.NANO_NAME, num_classes=0, img_size=8)
    layers = inject_lora(model, ["mlp.fc1", "attn.proj"], rank=2, alpha=4)
    assert len(layers) == 2 * len(model.blocks)
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, model.num_features)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("attn.qvk", r"attn\.qkv"),
        ("attn.qkv:x", "q, k and v, not x"),
        ("attn.proj:q", "no table says which rows"),
        ("head.fc", "(?s)neither a role .*Roles: .*fc1.*Names: attn.proj"),
    ],
)
def test_a_target_that_matches_nothing_is_an_error(target: str, message: str) -> None:
    model = timm.create_model(nano.NANO_NAME, num_classes=0, img_size=8)
    with pytest.raises(ConfigurationError, match=message):
        inject_lora(model, [target], rank=2, alpha=4)


@pytest.mark.parametrize("rank", [1, 3])
def test_forward_and_merged_weight_equal_those_of_peft(rank: int) -> None:
    torch.manual_seed(0)
    ours = LoRALayer(nn.Linear(6, 10), rank, alpha=8)
    plain = nn.Sequential(nn.Linear(6, 10))
    plain[0].load_state_dict(ours.base.state_dict())
    theirs = get_peft_model(plain, LoraConfig(r=rank, lora_alpha=8, target_modules=["0"]))
    ours.A.data.normal_()
    ours.B.data.normal_()
    state = {name: p for name, p in theirs.named_parameters() if "lora_" in name}
    assert len(state) == 2
    for name, parameter in state.items():
        parameter.data.copy_(ours.A[0] if "lora_A" in name else ours.B[0])
    x = torch.randn(5, 6)
    assert not torch.allclose(ours(x), ours.base(x), atol=0.1)
    torch.testing.assert_close(ours(x), theirs(x))
    merged = theirs.merge_and_unload()[0]
    torch.testing.assert_close(ours.merged_state()["weight"], merged.weight.detach())
    ours.merge()
    torch.testing.assert_close(ours.base.weight, merged.weight)
