"""SSF and visual prompts: what they compute, and what of the backbone they leave alone."""

from __future__ import annotations

from copy import deepcopy

import pytest
import timm
import torch
from torch import nn

from cl.errors import ConfigurationError, PalimpsestError
from cl.models.export import merged_state
from cl.models.tuning import (
    ScaledFeatures,
    inject_scale_shift,
    inject_visual_prompts,
    sharing_copy,
)
from tests.cl.models.toy import WIDTH, vit

IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def scaled() -> nn.Module:
    model = vit()
    inject_scale_shift(model, torch.Generator().manual_seed(1))
    return model


@torch.no_grad()
def test_scales_of_one_and_shifts_of_zero_change_nothing() -> None:
    model = scaled()
    for layer in model.modules():
        if isinstance(layer, ScaledFeatures):
            layer.scale.fill_(1.0)
            layer.shift.zero_()
    torch.testing.assert_close(model(IMAGES), vit()(IMAGES), rtol=0, atol=0)


@torch.no_grad()
def test_scale_and_shift_are_a_change_of_the_weights() -> None:
    """The same network without SSF, in float64."""
    model, plain = scaled().double(), vit().double()
    layers = [m for m in model.modules() if isinstance(m, ScaledFeatures)]
    assert len(layers) == 2 + 6 * 3, "the embedding, the last norm, and six layers of each block"
    plain.load_state_dict(merged_state(model))
    found, bare = model(IMAGES.double()), vit().double()(IMAGES.double())
    torch.testing.assert_close(found, plain(IMAGES.double()), rtol=1e-10, atol=1e-10)
    assert (found - bare).abs().max() > 1e-2


def test_scales_start_near_one_and_shifts_near_zero() -> None:
    layers = [m for m in scaled().modules() if isinstance(m, ScaledFeatures)]
    scales = torch.cat([layer.scale.detach() for layer in layers])
    shifts = torch.cat([layer.shift.detach() for layer in layers])
    error = 4 * 0.02 / len(scales) ** 0.5
    assert scales.mean().item() == pytest.approx(1, abs=error)
    assert shifts.mean().item() == pytest.approx(0, abs=error)
    for values in (scales, shifts):
        assert values.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("deep", [False, True])
@torch.no_grad()
def test_prompts_stand_behind_the_sequence(deep: bool) -> None:
    """Block by block with the backbone's own parts; deep prompts are replaced in front of every block."""
    model, plain = vit(), vit()
    inject_visual_prompts(model, 2, deep)
    prompts = [p for n, p in model.named_parameters() if n.endswith("prompt")]
    assert len(prompts) == (3 if deep else 1)
    for prompt in prompts:
        assert not prompt.any()
        prompt.normal_(generator=torch.Generator().manual_seed(len(prompts)))
    x = plain._pos_embed(plain.patch_embed(IMAGES))
    tokens = x.shape[1]
    for index, block in enumerate(plain.blocks):
        if deep or index == 0:
            x = torch.cat([x[:, :tokens], prompts[index].expand(5, -1, -1)], dim=1)
        x = block(x)
    found = model.forward_features(IMAGES)
    assert found.shape[1] == tokens, "the prompts are left out at the end"
    torch.testing.assert_close(found, plain.norm(x[:, :tokens]))
    assert not torch.allclose(model(IMAGES), plain(IMAGES), atol=1e-2)


@pytest.mark.parametrize("way", ["ssf", "vpt"])
def test_only_what_was_put_in_is_trained(way: str) -> None:
    model = vit()
    if way == "ssf":
        inject_scale_shift(model, torch.Generator())
        expected = 2 * (2 * WIDTH + 3 * (WIDTH * (1 + 3 + 1 + 1 + 4 + 1)))
    else:
        inject_visual_prompts(model, 5, deep=True)
        expected = 3 * 5 * WIDTH
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


@torch.no_grad()
def test_a_sharing_copy_has_the_same_tensors_and_its_own_layers() -> None:
    model = vit()
    twin = sharing_copy(model)
    before = twin(IMAGES)
    mine, theirs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert all(theirs[name] is parameter for name, parameter in mine.items())
    inject_scale_shift(model, torch.Generator())
    assert torch.equal(twin(IMAGES), before)
    assert not torch.equal(model(IMAGES), before)


def test_what_cannot_be_tuned_or_exported() -> None:
    resnet = timm.create_model("resnet18", pretrained=False, num_classes=0)
    for inject in (
        lambda model: inject_scale_shift(model, torch.Generator()),
        lambda model: inject_visual_prompts(model, 5, deep=True),
    ):
        with pytest.raises(ConfigurationError, match="plain timm vision transformer"):
            inject(deepcopy(resnet))
    with pytest.raises(ConfigurationError, match="prompts=0"):
        inject_visual_prompts(vit(), 0, deep=False)
    prompted = vit()
    inject_visual_prompts(prompted, 1, deep=False)
    with pytest.raises(PalimpsestError, match="no place for prompts"):
        merged_state(prompted)
