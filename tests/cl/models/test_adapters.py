"""Bottleneck adapters: what they add, and several of them in one pass."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl.errors import ConfigurationError, PalimpsestError
from cl.models.adapters import (
    BARE,
    Adapter,
    adapters_of,
    features_of_own_slot,
    features_of_slots,
    inject_adapters,
    reset_adapters,
)
from cl.models.export import merged_state
from tests.cl.models.toy import vit

IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def adapted(slots: int = 3) -> nn.Module:
    """A ViT with some kept random adapters."""
    model = vit()
    generator = torch.Generator().manual_seed(1)
    for adapter in inject_adapters(model, bottleneck=4, scale=0.5):
        for _ in range(slots):
            for parameter in adapter.parameters():
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
            adapter.keep()
    return model.eval()


def one_after_the_other(model: nn.Module, slot: int) -> Tensor:
    """The features through one slot, by making it the adapter in training."""
    for adapter in adapters_of(model):
        for name in Adapter.TENSORS:
            adapter.get_parameter(name).data.copy_(adapter.kept(name)[slot])
    return model(IMAGES)


@torch.no_grad()
def test_a_fresh_adapter_adds_exactly_nothing() -> None:
    model = vit()
    before = model(IMAGES)
    for adapter in inject_adapters(model, bottleneck=4):
        adapter.reset(torch.Generator().manual_seed(0))
        assert adapter.get_parameter("down").abs().max() <= 24**-0.5
        assert adapter.get_parameter("down").abs().min() > 0
    assert torch.equal(model(IMAGES), before)


def test_each_block_starts_with_numbers_of_its_own() -> None:
    model = vit()
    adapters = inject_adapters(model, bottleneck=4)
    reset_adapters(model, torch.Generator().manual_seed(0))
    first, second = (adapter.get_parameter("down").detach() for adapter in adapters[:2])
    assert not torch.isclose(first, second).any()


@pytest.mark.parametrize(("times", "expected"), [(1, 0.9), (12, 0.282430), (13, 0.254187)])
def test_pulling_several_times(times: int, expected: float) -> None:
    """A = 1, what was kept 0, α = 0.1: 0.9ⁿ."""
    adapter = inject_adapters(vit(), bottleneck=4)[0]
    adapter.keep()
    for parameter in adapter.parameters():
        parameter.data.fill_(1.0)
    for _ in range(times):
        adapter.pull(0.1)
    for parameter in adapter.parameters():
        torch.testing.assert_close(
            parameter.detach(), torch.full_like(parameter, expected), rtol=0, atol=1e-6
        )


@torch.no_grad()
def test_it_is_the_formula() -> None:
    """x + MLP(LN x) + s · U ReLU(D x + d) + u, where x comes out of the attention, not normalised."""
    model = adapted()
    (block, *_), tokens = model.blocks, torch.randn(2, 5, 24)
    base = block.base
    x = tokens + base.attn(base.norm1(tokens))
    D, d, U, u = (block.adapter.get_parameter(name) for name in Adapter.TENSORS)
    expected = x + base.mlp(base.norm2(x)) + 0.5 * (F.linear(F.relu(F.linear(x, D, d)), U, u))
    torch.testing.assert_close(block(tokens), expected)


@torch.no_grad()
def test_several_slots_in_one_pass_are_the_slots_one_after_the_other() -> None:
    model = adapted()
    together = features_of_slots(model, IMAGES, [2, 0, 1, BARE])
    assert together.shape == (4, 5, 24)
    for row, slot in enumerate([2, 0, 1]):
        torch.testing.assert_close(together[row], one_after_the_other(model, slot))
    torch.testing.assert_close(together[3], vit()(IMAGES))


@torch.no_grad()
def test_every_image_through_its_own_slot() -> None:
    model = adapted()
    slots = torch.tensor([2, 0, BARE, 1, 2])
    every = features_of_slots(model, IMAGES, [0, 1, 2, BARE])
    expected = torch.stack([every[slot][image] for image, slot in enumerate(slots.tolist())])
    torch.testing.assert_close(features_of_own_slot(model, IMAGES, slots), expected)


@torch.no_grad()
def test_what_comes_before_the_first_adapter_is_computed_once() -> None:
    model, sizes = adapted(), []
    model.blocks[0].base.mlp.register_forward_hook(lambda m, i, output: sizes.append(len(output)))
    model.blocks[1].base.mlp.register_forward_hook(lambda m, i, output: sizes.append(len(output)))
    features_of_slots(model, IMAGES, [0, 1, 2])
    assert sizes == [5, 15]


@torch.no_grad()
def test_many_slots_take_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    together = features_of_slots(model, IMAGES, [2, 0, 1])
    monkeypatch.setattr("cl.models.adapters.SLOTS_AT_ONCE", 2)
    torch.testing.assert_close(features_of_slots(model, IMAGES, [2, 0, 1]), together)


@torch.no_grad()
def test_after_a_pass_through_slots_the_adapter_in_training_is_back() -> None:
    model = adapted()
    before = model(IMAGES)
    features_of_slots(model, IMAGES, [0, 1])
    assert torch.equal(model(IMAGES), before)
    with pytest.raises(IndexError):
        features_of_slots(model, IMAGES, [7])
    assert torch.equal(model(IMAGES), before)


def test_parameters_are_as_many_as_the_paper_counts() -> None:
    """r = 16 in ViT-B: 304,320 numbers; r = 64: 1,189,632."""
    for bottleneck, expected in ((16, 304_320), (64, 1_189_632)):
        with torch.device("meta"):
            model = timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=0)
            inject_adapters(model, bottleneck)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


def test_only_the_adapters_are_trained_and_dropout_only_acts_in_training() -> None:
    model = adapted()
    assert torch.equal(model(IMAGES), model(IMAGES))
    model.train()
    assert not torch.equal(model(IMAGES), model(IMAGES))
    model(IMAGES).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (".adapter." in name)
        assert (parameter.grad is not None) == (".adapter." in name)


def test_a_backbone_without_such_blocks_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="vision transformer"):
        inject_adapters(timm.create_model("resnet10t", pretrained=False), 4)


def test_it_cannot_be_exported_as_a_plain_model() -> None:
    with pytest.raises(PalimpsestError, match="cannot be merged"):
        merged_state(adapted())
