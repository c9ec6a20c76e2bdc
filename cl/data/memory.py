"""The rehearsal memory: copies of past training images, counted, and forgotten at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from cl.data.arrays import Array, ArrayDataset
from cl.data.loading import Batch
from cl.errors import DataError, require, require_one_of
from cl.ops.tensors import pad_to

Prepare = Callable[[Tensor, Generator], Tensor]
FILLINGS = ("reservoir", "class_balanced")
UNITS = ("images", "bytes")


class Sample(NamedTuple):
    """Images drawn from a memory.

    images: uint8 B × H × W × C, or token ids int32 B × L. labels: int64 B. logits: float32 B × classes,
    those given when the image was stored and zeros after them; no columns if none were given.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor


class Memory(nn.Module):
    """At most `size` images of all that were offered, chosen at random and kept as copies.

    size: in images, or in the bytes of everything that is stored. filling: "reservoir" keeps each image
    offered so far with the same probability; "class_balanced" keeps equally many of each class, as far
    as there are so many, at random within the class. repeats: an image may be offered again in every
    epoch and enter again; otherwise only its first offer counts.

    Each offer draws a key in [0, 1), and the largest keys stay. That is reservoir sampling: every subset
    is equally likely, for any number of offers at once, and also when there is room for fewer images
    because the logits became wider. `begin` must be called before each experience. What is stored has the
    shape and the type of what is offered first: bytes of pixels, or token ids.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    logits: Tensor

    def __init__(
        self, size: int, unit: str = "images", filling: str = "reservoir", repeats: bool = False
    ) -> None:
        super().__init__()
        require(size >= 0, f"memory={size}: it must not be negative.")
        require_one_of("memory_unit", unit, UNITS)
        require_one_of("filling", filling, FILLINGS)
        self.size, self.unit, self.filling, self.repeats = size, unit, filling, repeats
        self.register_buffer("images", torch.zeros(0, 0, 0, 0, dtype=torch.uint8))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("keys", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("logits", torch.zeros(0, 0))
        self.begin(0)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def stored_bytes(self) -> int:
        """The bytes of everything that is stored: pixels, labels, keys and logits."""
        return sum(tensor.nbytes for tensor in self.buffers())

    @property
    def capacity(self) -> int:
        """How many images there is room for."""
        if self.unit == "images":
            return self.size
        pixels = self.images.shape[1:].numel() * self.images.itemsize
        one = [pixels, 8, 8, 4 * self.logits.shape[1]]
        return self.size // sum(one)

    def begin(self, images: int) -> None:
        """An experience of so many training images begins; all that is stored is from earlier ones."""
        self.offered = torch.zeros(images, dtype=torch.bool)
        self.positions = torch.full((len(self),), -1)  # in the present experience; −1: not from it

    @torch.no_grad()
    def add(
        self,
        data: ArrayDataset,
        positions: Array,
        generator: Generator,
        logits: Tensor | None = None,
    ) -> None:
        """Offer the images at `positions` of the experience's data; chance says which are kept.

        logits: B × classes, to be kept with them; in every call or in none.
        """
        offer = torch.from_numpy(positions)
        fresh = torch.arange(len(offer)) if self.repeats else (~self.offered[offer]).nonzero()[:, 0]
        self.offered[offer] = True
        if not len(fresh):
            return
        offer = offer[fresh]
        given = self.logits.new_zeros(len(fresh), 0) if logits is None else logits[fresh]
        kind = torch.from_numpy(np.empty(0, data.images.dtype)).dtype
        self._fit(torch.Size(data.images.shape[1:]), kind, given.shape[1])
        keys = torch.rand(len(offer), dtype=torch.float64, generator=generator)
        labels = torch.from_numpy(data.labels[data.rows[offer.numpy()]]).long()
        stays = self._choose(
            torch.cat([self.keys.cpu(), keys]), torch.cat([self.labels.cpu(), labels])
        )
        free = (~stays[: len(self)]).nonzero()[:, 0]
        chosen = stays[len(self) :].nonzero()[:, 0]
        images = torch.from_numpy(data.take(offer[chosen].numpy())[0])
        wide = pad_to(given[chosen].float(), torch.Size((len(chosen), self.logits.shape[1])))
        self.images = _place(self.images, free, images)
        self.labels = _place(self.labels, free, labels[chosen])
        self.keys = _place(self.keys, free, keys[chosen])
        self.logits = _place(self.logits, free, wide)
        self.positions = _place(self.positions, free, offer[chosen])

    def draw(self, count: int, generator: Generator, exclude: Array | None = None) -> Sample:
        """At most `count` different images, at random.

        exclude: positions in the experience's data whose images must not be among them.
        """
        allowed = torch.arange(len(self))
        if exclude is not None:
            allowed = allowed[~torch.isin(self.positions, torch.from_numpy(exclude))]
        chosen = allowed[torch.randperm(len(allowed), generator=generator)[:count]]
        stored = (self.images, self.labels, self.logits)
        return Sample(*(tensor[chosen.to(tensor.device)] for tensor in stored))

    def _fit(self, shape: torch.Size, kind: torch.dtype, classes: int) -> None:
        """Take the shape and type of the first images, and widen the logits to the classes known now."""
        if not len(self):
            self.images = self.images.new_zeros(0, *shape, dtype=kind)
        if self.images.shape[1:] != shape:
            raise DataError(
                f"The memory holds images of {tuple(self.images.shape[1:])} and was offered some of "
                f"{tuple(shape)}. Resize them to one size."
            )
        require_same_type(self.images, kind, "memory")
        width = max(classes, self.logits.shape[1])
        self.logits = pad_to(self.logits, torch.Size((len(self), width)))

    def _choose(self, keys: Tensor, labels: Tensor) -> Tensor:
        """Which of the images with these keys and labels stay: a mask."""
        order = keys.argsort(descending=True)
        if self.filling == "class_balanced":
            order = order[rank_within(labels[order]).argsort(stable=True)]
        stays = torch.zeros(len(keys), dtype=torch.bool)
        stays[order[: self.capacity]] = True
        return stays


class Rehearsal(Memory):
    """A memory that knows the present experience: its images are offered, earlier ones recalled.

    random: what decides in this experience; images that were drawn may be augmented with it, too.
    """

    data: ArrayDataset | None = None
    random: Generator

    def open(self, data: ArrayDataset, generator: Generator) -> None:
        """An experience begins."""
        self.data, self.random = data, generator
        self.begin(len(data))

    def recall(self, count: int, batch: Batch) -> Sample:
        """At most `count` different images, at random, none of them in the batch."""
        return self.draw(count, self.random, exclude=batch.positions[batch.positions >= 0])

    def joined(self, batch: Batch, count: int, prepare: Prepare) -> Batch:
        """The batch and, behind it, `count` images from the memory (their positions are −1).

        prepare: from uint8 to what the backbone takes, with the generator of the augmentation.
        """
        old = self.recall(count, batch)
        if not len(old.labels):
            return batch
        images = torch.cat([batch.images, prepare(old.images, self.random)])
        labels = torch.cat([batch.labels, old.labels])
        return Batch(images, labels, np.append(batch.positions, np.full(len(old.labels), -1)))

    def offer(self, batch: Batch, logits: Tensor | None = None) -> None:
        """Offer the batch's images, as they are without augmentation; as in `add`. Old ones are left out."""
        assert self.data is not None, "the experience is over"
        new = batch.positions >= 0
        kept = logits if logits is None or new.all() else logits[torch.from_numpy(new)]
        self.add(self.data, batch.positions[new], self.random, kept)

    def close(self) -> None:
        """The experience is over, and its data are out of reach."""
        self.data = None


def require_same_type(stored: Tensor, offered: torch.dtype, where: str) -> None:
    """DataError if what is offered would have to be cast: token ids do not fit into bytes."""
    if stored.dtype != offered:
        raise DataError(
            f"The {where} holds {str(stored.dtype).removeprefix('torch.')} and was offered "
            f"{str(offered).removeprefix('torch.')}. Give it the inputs of one kind of stream."
        )


def rank_within(labels: Tensor) -> Tensor:
    """How many earlier entries have the same label: [7, 3, 7, 7] gives [0, 0, 1, 2]."""
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    return ranks


def _place(old: Tensor, free: Tensor, new: Tensor) -> Tensor:
    """`new` in the places `free` of `old`: what does not fit is appended, places left over go."""
    new, free = new.to(old), free.to(old.device)
    both = min(len(free), len(new))
    old[free[:both]] = new[:both]
    if both == len(free):
        return torch.cat([old, new[both:]]) if both < len(new) else old
    stays = torch.ones(len(old), dtype=torch.bool, device=old.device)
    stays[free[both:]] = False
    return old[stays]
