"""Images and sequences that are computed when they are asked for, so that nothing large is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np

from cl.data.arrays import Array

T = TypeVar("T", covariant=True)
Source = Array | Callable[[Array], Iterable[bytes]] | None


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose items are made when they are indexed; its memory does not depend on its length."""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self.make(i) for i in range(*index.indices(self.length))]
        if not -self.length <= index < self.length:
            raise IndexError(index)
        return self.make(index % self.length)


class ComputedImages:
    """Looks like a uint8 array N × H × W × C; `make(rows)` gives the images of an int64 array of rows.

    The result for a row must not depend on the other rows. key: what tells these images from others of
    the same rows (a rotation, a corruption), for the fingerprint of a stream. source: what they are made
    from, for the hash of its contents: other images of the same rows, or a function that gives for rows the
    bytes of their files; None if there is nothing but the images themselves.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        make: Callable[[Array], Array],
        key: str,
        source: Source = None,
    ) -> None:
        self.shape, self.make, self.key, self.source = shape, make, key, source

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Array:
        chosen = np.arange(len(self))[rows]
        images = self.make(np.atleast_1d(chosen))
        return images[0] if chosen.ndim == 0 else images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self[:].astype(dtype or np.uint8, copy=False)


def computed(
    shape: tuple[int, int, int, int],
    make: Callable[[Array], Array],
    key: str,
    source: Source = None,
) -> Array:
    """Images that `make(rows)` computes (see `ComputedImages`), typed as the array that they stand for."""
    return cast(Array, ComputedImages(shape, make, key, source))


def mapped(images: Array, change: Callable[[Array, Array], Array], key: str) -> Array:
    """`images` seen through `change(images, rows)`, uint8 B × H × W × C to the same shape.

    Nothing is stored: a batch is changed when it is read.
    """
    height, width, channels = (int(side) for side in images.shape[1:])
    return mapped_to((height, width, channels), images, change, key)


def mapped_to(
    shape: tuple[int, int, int],
    images: Array,
    change: Callable[[Array, Array], Array],
    key: str,
) -> Array:
    """As `mapped`, where the change gives images of another `shape` (H × W × C)."""
    before = key_of(images)
    return computed(
        (len(images), *shape),
        lambda rows: change(np.asarray(images[rows]), rows),
        f"{before}/{key}" if before else key,
        images,
    )


def key_of(images: Array) -> str:
    """What tells computed images from others of the same rows; "" for stored ones."""
    return images.key if isinstance(images, ComputedImages) else ""
