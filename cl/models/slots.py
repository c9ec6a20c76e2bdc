"""Features through the kept slots of a backbone's adapters, each computed once for an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
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
from cl.models.anatomy import Chain
from cl.models.frozen import content, is_frozen, is_watched

if TYPE_CHECKING:
    from cl.models.model import Model


def encode_slots(model: Model, images: Tensor, slots: Sequence[int]) -> Tensor:
    """The features of every image through every one of `slots`: slots × B × features.

    images: float32 B × 3 × S × S (or `Images`). What the model's cache knows is not computed.
    """
    rows = model.ranks.split(images, lambda own: _encode_slots(model, own, slots).transpose(0, 1))
    return rows.transpose(0, 1)


def _encode_slots(model: Model, images: Tensor, slots: Sequence[int]) -> Tensor:
    parts = frozen_base(model)
    if not isinstance(images, Images) or model.cache is None or parts is None:
        return features_of_slots(model.backbone, images, slots)
    count, digests = len(images), model.cache.digests.of(images)
    names = model.slot_names.of(model.backbone, slots)

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

    entries = [entry(digest, names[slot]) for slot in slots for digest in digests]
    key = model.key(parts, images.on, model.base_fingerprint)
    rows = model.cache.lookup(key, entries, compute, images.on)
    return rows.view(len(slots), count, -1)


def encode_own_slot(model: Model, images: Tensor, slots: Tensor) -> Tensor:
    """The features of each image through its own slot: B × features. slots: int64, B; see `encode_slots`."""
    parts = frozen_base(model)
    if not isinstance(images, Images) or model.cache is None or parts is None:
        return features_of_own_slot(model.backbone, images, slots)

    def compute(which: Array) -> Tensor:
        chosen = torch.from_numpy(which).to(slots.device)
        return features_of_own_slot(model.backbone, images.part(which), slots[chosen])

    names = model.slot_names.of(model.backbone, slots.unique().tolist())
    digests = model.cache.digests.of(images)
    entries = [entry(d, names[slot]) for d, slot in zip(digests, slots.tolist(), strict=True)]
    key = model.key(parts, images.on, model.base_fingerprint)
    return model.cache.lookup(key, entries, compute, images.on)


def frozen_base(model: Model) -> list[nn.Module] | None:
    """All of the backbone but its adapters, if features through a kept slot do not change; else None."""
    backbone, trained = model.backbone, model.trained
    chain = Chain.of(backbone)
    if trained is None or chain is None:
        return None
    own = [backbone, *(m for m in backbone.modules() if isinstance(m, Adapter | AdaptedBlock))]
    if any(is_watched(module) or module.training for module in own):
        return None
    if any(id(p) in trained for p in backbone.parameters(recurse=False)):
        return None
    blocks = [b.base if isinstance(b, AdaptedBlock) else b for b in chain.blocks]
    parts = [*chain.embed, *blocks, *chain.readout]
    return parts if all(is_frozen(part, trained) for part in parts) else None


def entry(digest: bytes, name: bytes) -> bytes:
    """The name of the features of one image through one slot."""
    return hashlib.blake2b(digest + name, digest_size=DIGEST_BYTES).digest()


class SlotNames:
    """The hashes of slots, each taken once for as long as the kept tensors stay where they are."""

    def __init__(self) -> None:
        self.state: object = None
        self.names: dict[int, bytes] = {}

    def of(self, backbone: nn.Module, slots: Sequence[int]) -> dict[int, bytes]:
        """For each slot, a hash of all that the adapters do in it."""
        adapters = adapters_of(backbone)
        kept = [adapter.kept(name) for adapter in adapters for name in Adapter.TENSORS]
        state = [(t.data_ptr(), t._version, t.shape) for t in kept]
        if state != self.state:
            self.state, self.names = state, {}
        for slot in set(slots) - self.names.keys():
            found = hashlib.blake2b(digest_size=DIGEST_BYTES)
            for tensor in kept if slot != BARE else ():
                found.update(content(tensor[slot]))
            found.update(repr([a.scale for a in adapters] if slot != BARE else BARE).encode())
            self.names[slot] = found.digest()
        return self.names

    def forget(self) -> None:
        """Take them again: a write through `.data` leaves no trace."""
        self.state = None
