"""Batches of a data set, on the device and ready for the backbone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property
from itertools import chain, pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_map

from cl.data.arrays import Array, ArrayDataset, Union
from cl.data.computed import ComputedImages
from cl.data.transforms import Transform, augment


class Images:
    """The images of a batch, read and transformed only when somebody looks at them.

    Stands for the tensor float32 B × 3 × S × S in every torch function. A frozen backbone whose features are
    known never looks (`cl.data.cache`). Whoever looks at the pixels sets off the reading of the batch that
    follows, so that files are decoded while the network is busy.
    """

    def __init__(
        self,
        data: ArrayDataset | Union,
        positions: Array,
        transform: Transform,
        device: torch.device,
    ) -> None:
        self.data, self.positions, self.transform, self.on = data, positions, transform, device
        self.following: Images | None = None
        self.reading: Future[tuple[Array, Array]] | None = None

    @cached_property
    def pixels(self) -> Array:
        """uint8 B × H × W × C."""
        read = self.reading.result() if self.reading else self.data.take(self.positions)
        if self.following is not None:
            self.following.read_ahead()
        return read[0]

    def read_ahead(self) -> None:
        """Begin to read in the background, unless the pixels lie in memory as they are."""
        arrays = (images for images, _ in self.data.origins(self.positions))
        if any(isinstance(images, ComputedImages) for images in arrays):
            self.reading = _reader().submit(self.data.take, self.positions)

    @cached_property
    def tensor(self) -> Tensor:
        """The images as the backbone takes them."""
        return self.part(np.arange(len(self)))

    def part(self, which: Array) -> Tensor:
        """Some of the images as the backbone takes them."""
        pixels = torch.from_numpy(self.pixels[which]).to(self.on, non_blocking=True)
        return self.transform(pixels)

    def rows(self, which: Array) -> Tensor:
        """Some of the images, still unread."""
        chosen = Images(self.data, self.positions[which], self.transform, self.on)
        return cast(Tensor, chosen)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: Any) -> Tensor:
        if isinstance(key, Tensor) and key.ndim == 1:
            return self.rows(np.arange(len(self))[key.cpu().numpy()])
        return self.tensor[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor, name)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map(as_tensor, (args, kwargs or {}))
        return function(*args, **kwargs)


def as_tensor(images: Any) -> Any:
    """The tensor that `Images` stand for; anything else as it is."""
    return images.tensor if isinstance(images, Images) else images


class Batch(NamedTuple):
    """One step's data.

    images: float32 B × 3 × S × S (or `Images`, which stand for it) and labels: int64 B, on the device.
    positions: int64 B, where in the data set they are from.
    """

    images: Tensor
    labels: Tensor
    positions: Array


class Order:
    """The random order of the passes over a data set, and of the augmentation, drawn from one generator.

    It can say where it is in a pass, and go on from there in another process.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.batch = 0  # of the present pass: how many were given out
        self.begun = generator.get_state()  # of the generator when the present pass began

    def batches(self, count: int, batch_size: int) -> Iterator[tuple[Array, Array | None]]:
        """What is left of the present pass over `count` images: positions, and those of the next batch."""
        now = self.generator.get_state()
        self.generator.set_state(self.begun)
        chunks = torch.split(torch.randperm(count, generator=self.generator), batch_size)
        if self.batch:
            self.generator.set_state(now)
        for pair in followed(chunk.numpy() for chunk in chunks[self.batch :]):
            self.batch += 1
            yield pair
        self.batch, self.begun = 0, self.generator.get_state()

    def state(self) -> dict[str, Tensor]:
        """Where it is."""
        now = self.generator.get_state()
        return {"begun": self.begun, "now": now, "batch": torch.tensor(self.batch)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go to where `state` was taken."""
        self.begun, self.batch = state["begun"], int(state["batch"])
        self.generator.set_state(state["now"])


def index_batches(count: int, batch_size: int) -> Iterator[Array]:
    """Positions 0 … count − 1 in batches, in this order."""
    for start in range(0, count, batch_size):
        yield np.arange(start, min(start + batch_size, count))


def followed(batches: Iterable[Array]) -> Iterator[tuple[Array, Array | None]]:
    """Each batch with the one after it; the last with None."""
    yield from pairwise(chain(batches, [None]))


def batches(
    data: ArrayDataset | Union,
    transform: Transform,
    batch_size: int,
    device: torch.device,
    *,
    order: Order | None = None,
    augmentation: str = "none",
) -> Iterator[Batch]:
    """One pass over `data`, as stored; or, with an `order`, shuffled and augmented (what is left of it)."""
    count = len(data)
    walk = (
        followed(index_batches(count, batch_size))
        if order is None
        else order.batches(count, batch_size)
    )
    begun: Images | None = None
    for positions, next_positions in walk:
        images = begun or Images(data, positions, transform, device)
        if next_positions is not None:
            begun = images.following = Images(data, next_positions, transform, device)
        inputs = cast(Tensor, images)
        if order is not None and augmentation != "none":
            pixels = torch.from_numpy(images.pixels).to(device, non_blocking=True)
            inputs = transform(augment(pixels, augmentation, order.generator))
        labels = torch.from_numpy(data.labels_at(positions).astype(np.int64))
        yield Batch(inputs, labels.to(device, non_blocking=True), positions)


@cache
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="read ahead")
