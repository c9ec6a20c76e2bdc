"""Features through the slots of adapters are computed once for an image, and are the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cl.config import BackboneConfig
from cl.data.cache import FeatureCache
from cl.data.loading import Images
from cl.models import slots as module
from cl.models.adapters import BARE, Adapter, inject_adapters
from cl.models.backbone import create_backbone
from cl.models.model import Model
from cl.models.slots import encode_own_slot, encode_slots
from tests.cl.data.test_cache import CPU
from tests.conftest import toy_images

DATA = toy_images(12, 2, 0)


@pytest.fixture
def model() -> Model:
    """A tiny ViT with two kept slots of random adapters, and a cache."""
    torch.manual_seed(0)
    config = BackboneConfig("palimpsest_nano_patch4_32", 32, pretrained=False)
    model = Model(create_backbone(config), FeatureCache(1e6))
    adapters = inject_adapters(model.backbone, 4)
    for _ in range(2):
        keep_random(adapters)
    model.eval()
    model.set_trained({id(p) for adapter in adapters for p in adapter.parameters()})
    return model


def keep_random(adapters: list[Adapter]) -> None:
    for adapter in adapters:
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        adapter.keep()


def images(model: Model, positions: list[int]) -> Images:
    return Images(DATA, np.array(positions), model.transform, CPU)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through how many slots, pass by pass."""
    counted: list[int] = []
    for name, width in (("features_of_slots", True), ("features_of_own_slot", False)):
        original: Callable[..., Tensor] = getattr(module, name)

        def count(backbone, given, slots, original=original, width=width):  # type: ignore[no-untyped-def]
            counted.append(len(given) * (len(slots) if width else 1))
            return original(backbone, given, slots)

        monkeypatch.setattr(module, name, count)
    return counted


@torch.no_grad()
def test_an_image_goes_through_a_slot_once(model: Model, passes: list[int]) -> None:
    first = encode_slots(model, images(model, [0, 1, 2, 3]), [0, BARE])
    assert passes == [8]
    more = encode_slots(model, images(model, [2, 3, 4, 5, 6]), [0, 1, BARE])
    assert passes[1:] == [6, 5], "three images through two slots, and all five through slot 1"
    assert torch.equal(more[[0, 2], :2], first[:, 2:])
    own = encode_own_slot(model, images(model, [4, 5, 6]), torch.tensor([1, 0, BARE]))
    assert len(passes) == 3, "all of them are known"
    assert torch.equal(own, torch.stack([more[1, 2], more[0, 3], more[2, 4]]))


@torch.no_grad()
def test_kept_features_are_those_that_are_computed(model: Model) -> None:
    wanted = [0, 1, BARE]
    batches = [[0, 1, 2], [1, 2, 5, 7], [7], [0, 3, 4, 5, 6, 7, 8]]
    kept = [encode_slots(model, images(model, batch), wanted) for batch in batches]
    model.cache = None
    for batch, found in zip(batches, kept, strict=True):
        assert torch.equal(found, encode_slots(model, images(model, batch), wanted))


@torch.no_grad()
def test_a_new_slot_leaves_the_others_known(model: Model, passes: list[int]) -> None:
    encode_slots(model, images(model, list(range(8))), [0, 1])
    adapters = [m for m in model.backbone.modules() if isinstance(m, Adapter)]
    keep_random(adapters)
    model.weights_changed()
    encode_slots(model, images(model, list(range(8))), [0, 1, 2])
    assert passes == [16, 8]


@torch.no_grad()
@pytest.mark.parametrize("what", ["kept_up", "base", "scale"])
def test_other_weights_are_not_mistaken_for_the_same(model: Model, what: str) -> None:
    before = encode_slots(model, images(model, [0, 1, 2]), [0])
    adapter = next(m for m in model.backbone.modules() if isinstance(m, Adapter))
    if what == "kept_up":
        adapter.kept("up").mul_(2)
    elif what == "base":
        model.backbone.get_parameter("norm.weight").mul_(2)
    else:
        adapter.scale = 7.0
        model.weights_changed()
    assert not torch.equal(encode_slots(model, images(model, [0, 1, 2]), [0]), before)


@torch.no_grad()
@pytest.mark.parametrize("why", ["training", "trained base", "watched"])
def test_what_may_change_is_not_kept(model: Model, passes: list[int], why: str) -> None:
    if why == "training":
        model.train()
    elif why == "trained base":
        model.set_trained({id(model.backbone.get_parameter("norm.weight"))})
    else:
        model.backbone.register_forward_hook(lambda *_: None)
    for _ in range(2):
        encode_slots(model, images(model, [0, 1, 2]), [0])
    assert passes == [3, 3]
