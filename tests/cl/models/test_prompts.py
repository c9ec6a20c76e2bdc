"""Where prompts enter a ViT."""

from __future__ import annotations

import pytest
import timm
import torch

from cl.errors import ConfigurationError, PalimpsestError
from cl.models.export import merged_state
from cl.models.prompts import (
    existing,
    inject_prefixes,
    inject_token_prompt,
    prompt_outputs,
    prompted,
)
from tests.cl.models.toy import vit

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_without_prompts_it_is_the_plain_backbone() -> None:
    model = vit()
    before = model(IMAGES)
    inject_prefixes(model, [0, 2])
    inject_token_prompt(model)
    assert torch.equal(model(IMAGES), before)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_a_prefix_is_attended_like_keys_and_values_of_further_tokens() -> None:
    """The attention written out for one image and one head."""
    model = vit()
    (place,) = inject_prefixes(model, [1])
    x, prefix = torch.randn(1, 5, 24), torch.randn(1, 2, 4, 24)
    with prompted([place], [prefix]):
        found = place(x)
    base, outputs = place.base, []
    q, k, v = base.qkv(x)[0].reshape(5, 3, 24).unbind(1)
    keys, values = torch.cat([prefix[0, 0], k]), torch.cat([prefix[0, 1], v])
    for head in range(2):
        part = slice(12 * head, 12 * head + 12)
        weights = (q[:, part] @ keys[:, part].T / 12**0.5).softmax(1)
        outputs.append(weights @ values[:, part])
    torch.testing.assert_close(found[0], base.proj(torch.cat(outputs, dim=1)))


@torch.no_grad()
def test_a_prefix_that_nobody_attends_to_changes_nothing() -> None:
    """p_K far from all queries: the softmax gives it no weight."""
    model = vit()
    (place,) = inject_prefixes(model, [0])
    x = torch.randn(1, 5, 24)
    place.base.qkv.bias.data[:24] += 10  # all queries point one way
    plain = place(x)
    with prompted([place], [torch.stack([-100 * torch.ones(1, 24), 7 * torch.ones(1, 24)])[None]]):
        torch.testing.assert_close(place(x), plain)


@torch.no_grad()
def test_every_image_has_its_own_prefix() -> None:
    model = vit()
    places = inject_prefixes(model, [0, 1])
    prefixes = [torch.randn(3, 2, 4, 24) for _ in places]
    with prompted(places, prefixes):
        together = model(IMAGES)
    for index in range(3):
        with prompted(places, [prefix[index : index + 1] for prefix in prefixes]):
            torch.testing.assert_close(together[index], model(IMAGES[index : index + 1])[0])
    assert not torch.allclose(together, model(IMAGES), atol=1e-3), "and afterwards none"


@torch.no_grad()
def test_tokens_stand_behind_the_class_token_and_their_outputs_are_averaged() -> None:
    """224 pixels: 1 + 25 + 196 tokens."""
    model, images = vit(224), torch.randn(2, 3, 224, 224)
    place, tokens = inject_token_prompt(model), torch.randn(2, 25, 24)
    seen: list[torch.Tensor] = []
    model.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    features = prompt_outputs(model, images, place, tokens)
    plain = model(images)
    with_prompt, without = seen
    assert with_prompt.shape[1] == 196 + 1 + 25
    torch.testing.assert_close(with_prompt[:, 1:26], tokens + model.pos_embed[:, :1])
    torch.testing.assert_close(with_prompt[:, :1], without[:, :1])
    torch.testing.assert_close(with_prompt[:, 26:], without[:, 1:])
    sequence = model.norm(model.blocks(with_prompt))
    torch.testing.assert_close(features, sequence[:, 1:26].mean(1))
    assert plain.shape == (2, 24)


def test_layers_that_do_not_exist_are_left_out() -> None:
    assert existing([2, 3, 4], 4) == [2, 3]
    with pytest.raises(ConfigurationError, match=r"0 … 2"):
        existing([5], 3)


def test_other_backbones_and_exports_are_refused() -> None:
    for inject in (inject_token_prompt, lambda model: inject_prefixes(model, [0])):
        with pytest.raises(ConfigurationError, match="vision transformer"):
            inject(timm.create_model("resnet10t", pretrained=False))
        model = vit()
        inject(model)
        with pytest.raises(PalimpsestError, match="no place for prompts"):
            merged_state(model)


def test_an_error_in_a_pass_leaves_no_prompt_behind() -> None:
    model = vit()
    (place,) = inject_prefixes(model, [0])
    with pytest.raises(RuntimeError), prompted([place], [torch.zeros(7, 2, 4, 24)]):
        model(IMAGES)
    assert place.slot.content is None
    assert torch.equal(model(IMAGES), vit()(IMAGES))
