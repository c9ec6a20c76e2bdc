"""Features through the kept slots of a backbone's adapters, each computed once for an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cl.data.arrays import Array
from cl.data.cache import DIGEST_BYTES
from cl.data.loading import Images
from cl.models.adapters import (
    BARE,
    AdaptedBlock,
    Adapter,
    adapters_of,
    features_of_own_slot,
    features_of_slots,
)
from cl.models.frozen import embedding_parts, is_frozen, is_watched

if TYPE_CHECKING:
    from cl.models.model import Model


def encode_slots(model: Model, images: Tensor, slots: Sequence[int]) -> Tensor:
    """The features of every image through every one of `slots`: slots × B × features.

    images: float32 B × 3 × S × S (or `Images`). What the model's cache knows is not computed.
    """
    ranks = model.ranks
    if ranks.active and len(images) >= ranks.world:
        own = _encode_slots(model, ranks.share(images), slots).transpose(0, 1)
        return ranks.gather(own, len(images)).transpose(0, 1)
    return _encode_slots(model, images, slots)


def _encode_slots(model: Model, images: Tensor, slots: Sequence[int]) -> Tensor:
    if not isinstance(images, Images) or not may_be_kept(model):
        return features_of_slots(model.backbone, images, slots)
    assert model.cache is not None
    count, digests = len(images), model.cache.digests.of(images)
    names = [model.slot_names.of(model.backbone, slot) for slot in slots]

    def compute(which: Array) -> Tensor:
        lacking: dict[tuple[int, ...], list[int]] = {}  # images that some slots lack together
        for place in range(len(slots)):
            own = which[which // count == place] % count
            lacking.setdefault(tuple(own), []).append(place)
        pieces = []
        for chosen, places in lacking.items():
            if chosen:
                part = images.part(np.array(chosen))
                found = features_of_slots(model.backbone, part, [slots[place] for place in places])
                pieces += [(which // count == p, f) for p, f in zip(places, found, strict=True)]
        rows = pieces[0][1].new_empty(len(which), model.features)
        for where, features in pieces:
            rows[torch.from_numpy(where)] = features
        return rows

    entries = [entry(digest, name) for name in names for digest in digests]
    rows = model.cache.lookup(base_key(model, images), entries, compute)
    return rows.view(len(slots), count, -1)


def encode_own_slot(model: Model, images: Tensor, slots: Tensor) -> Tensor:
    """The features of each image through its own slot: B × features. slots: int64, B; see `encode_slots`."""
    if not isinstance(images, Images) or not may_be_kept(model):
        return features_of_own_slot(model.backbone, images, slots)
    assert model.cache is not None

    def compute(which: Array) -> Tensor:
        chosen = torch.from_numpy(which).to(slots.device)
        return features_of_own_slot(model.backbone, images.part(which), slots[chosen])

    names = {slot: model.slot_names.of(model.backbone, slot) for slot in slots.unique().tolist()}
    digests = model.cache.digests.of(images)
    entries = [entry(d, names[slot]) for d, slot in zip(digests, slots.tolist(), strict=True)]
    return model.cache.lookup(base_key(model, images), entries, compute)


def may_be_kept(model: Model) -> bool:
    """Whether an image's features through a kept slot are the same whenever they are computed."""
    backbone, trained = model.backbone, model.trained
    if model.cache is None or trained is None or not isinstance(backbone, VisionTransformer):
        return False
    own = [backbone, *(m for m in backbone.modules() if isinstance(m, Adapter | AdaptedBlock))]
    return (
        not any(is_watched(module) or module.training for module in own)
        and not any(id(p) in trained for p in backbone.parameters(recurse=False))
        and all(is_frozen(part, trained) for part in parts_below(backbone))
    )


def parts_below(backbone: VisionTransformer) -> list[nn.Module]:
    """All of a backbone but its adapters."""
    blocks = [b.base if isinstance(b, AdaptedBlock) else b for b in backbone.blocks]
    return [*embedding_parts(backbone), *blocks, backbone.norm, backbone.fc_norm]


def base_key(model: Model, images: Images) -> str:
    """Everything but the image and the slot that features depend on."""
    assert isinstance(model.backbone, VisionTransformer)
    return model.key(parts_below(model.backbone), images.on, model.base_fingerprint)


def entry(digest: bytes, name: bytes) -> bytes:
    """The name of the features of one image through one slot."""
    return hashlib.blake2b(digest + name, digest_size=DIGEST_BYTES).digest()


class SlotNames:
    """The hashes of slots, each taken once for as long as the kept tensors stay where they are."""

    def __init__(self) -> None:
        self.state: object = None
        self.names: dict[int, bytes] = {}

    def of(self, backbone: nn.Module, slot: int) -> bytes:
        """A hash of all that the adapters do in this slot."""
        adapters = adapters_of(backbone)
        kept = [adapter.kept(name) for adapter in adapters for name in Adapter.TENSORS]
        state = [(t.data_ptr(), t._version, t.shape) for t in kept]
        if state != self.state:
            self.state, self.names = state, {}
        if slot not in self.names:
            found = hashlib.blake2b(digest_size=DIGEST_BYTES)
            for tensor in kept if slot != BARE else ():
                flat = tensor[slot].detach().cpu().contiguous().view(-1).view(torch.uint8)
                found.update(flat.numpy().data)
            found.update(repr([a.scale for a in adapters] if slot != BARE else BARE).encode())
            self.names[slot] = found.digest()
        return self.names[slot]

    def forget(self) -> None:
        """Take them again: a write through `.data` leaves no trace."""
        self.state = None
