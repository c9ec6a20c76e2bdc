"""Batches of a data set, on the device and ready for the backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property, partial
from itertools import chain, pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils._pytree import tree_map

from cl.data.arrays import Array, ArrayDataset, Union
from cl.data.computed import ComputedImages
from cl.data.transforms import Transform, augment
from cl.errors import require


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
        self.reading: Future[Array] | None = None

    @cached_property
    def pixels(self) -> Array:
        """uint8 B × H × W × C."""
        pixels = self.reading.result() if self.reading else self.data.pixels_at(self.positions)
        if self.following is not None:
            self.following.read_ahead()
        return pixels

    def read_ahead(self) -> None:
        """Begin to read in the background, unless the pixels lie in memory as they are."""
        arrays = (images for images, _ in self.data.origins(self.positions))
        if any(isinstance(images, ComputedImages) for images in arrays):
            self.reading = _reader().submit(self.data.pixels_at, self.positions)

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


class Batch:
    """One step's data. Images and labels are fetched when somebody looks at them.

    images: float32 B × 3 × S × S (or `Images`, which stand for it) and labels: int64 B, on the device;
    labels may also be a function that fetches them. positions: int64 B, where in the data set they are
    from; −1 for an image that a method has added.
    """

    def __init__(
        self, images: Tensor, labels: Tensor | Callable[[], Tensor], positions: Array
    ) -> None:
        self.images, self.positions, self._labels = images, positions, labels

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Any]:
        """`images, labels, positions = batch`"""
        yield from (self.images, self.labels, self.positions)

    @cached_property
    def labels(self) -> Tensor:
        """int64 B, on the device; a DataError where there are none."""
        return self._labels if isinstance(self._labels, Tensor) else self._labels()


class Order:
    """The random order of the passes over a data set, and of the augmentation, drawn from one generator.

    change: makes another order of the random one, both int64 positions of the same number.
    It can say where it is in a pass, and go on from there in another process.
    """

    def __init__(
        self, generator: Generator, change: Callable[[Tensor], Tensor] = lambda positions: positions
    ) -> None:
        self.generator, self.change = generator, change
        self.batch = 0  # of the present pass: how many were given out
        self.positions = torch.zeros(0, dtype=torch.int64)  # of the present pass

    def batches(self, count: int, batch_size: int) -> Iterator[tuple[Array, Array | None]]:
        """What is left of the present pass over `count` images: positions, and those of the next batch."""
        if not self.batch:
            drawn = torch.randperm(count, generator=self.generator)
            self.positions = self.change(drawn)
            check_order(self.positions, count)
        chunks = torch.split(self.positions, batch_size)
        for pair in followed(chunk.numpy() for chunk in chunks[self.batch :]):
            self.batch += 1
            yield pair
        self.batch = 0

    def state(self) -> dict[str, Tensor]:
        """Where it is."""
        now = self.generator.get_state()
        return {"positions": self.positions, "now": now, "batch": torch.tensor(self.batch)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go to where `state` was taken."""
        self.positions, self.batch = state["positions"], int(state["batch"])
        self.generator.set_state(state["now"])


def check_order(positions: Tensor, count: int) -> None:
    """Raise ConfigurationError unless there are `count` positions, int64, in 0 … count − 1."""
    fits = positions.dtype == torch.int64 and positions.shape == (count,)
    require(
        fits and not ((positions < 0) | (positions >= count)).any(),
        f"The order of a pass must be {count} positions in 0 … {count - 1}, int64; it is "
        f"{positions.dtype} of shape {tuple(positions.shape)}.",
    )


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
        yield Batch(inputs, partial(_labels, data, positions, device), positions)


def _labels(data: ArrayDataset | Union, positions: Array, device: torch.device) -> Tensor:
    labels = torch.from_numpy(data.labels_at(positions).astype(np.int64))
    return labels.to(device, non_blocking=True)


@cache
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="read ahead")
