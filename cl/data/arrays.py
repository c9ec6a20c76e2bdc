"""Images and labels as arrays: indexed a whole batch at a time, never image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cl.errors import DataError, explained
from cl.names import shown

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ArrayDataset:
    """Some rows of an array of images, or of texts.

    images: uint8, N × H × W × C (C = 1 or 3), or token ids, int32, N × L; possibly memory-mapped and shared
    by many data sets.
    labels: int64, N. rows: which of the N belong to this data set (int64), in this order.
    """

    images: Array
    labels: Array
    rows: Array

    def __post_init__(self) -> None:
        if is_text(self.images):
            check_labels(self.images, self.labels, "the data set")
        else:
            check_images(self.images, self.labels, "the data set")

    @classmethod
    def of(cls, images: Array, labels: Array) -> ArrayDataset:
        """All rows of `images` and `labels`."""
        return cls(images, labels, np.arange(len(images), dtype=np.int64))

    @classmethod
    def unlabelled(cls, images: Array) -> ArrayDataset:
        """All rows of `images`; every label is -1."""
        return cls.of(images, np.full(len(images), -1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> Array:
        """The labels of the rows, int64, len(self)."""
        return np.asarray(self.labels[self.rows])

    def subset(self, positions: Array) -> ArrayDataset:
        """The rows at `positions` (counted within this data set); no image is copied."""
        return ArrayDataset(self.images, self.labels, self.rows[positions])

    def take(self, positions: Array) -> tuple[Array, Array]:
        """A batch: images uint8 B × H × W × C, labels int64 B."""
        rows = self.rows[positions]
        return np.asarray(self.images[rows]), np.asarray(self.labels[rows])

    def pixels_at(self, positions: Array) -> Array:
        """The images of a batch, uint8 B × H × W × C; no label is read."""
        return np.asarray(self.images[self.rows[positions]])

    def labels_at(self, positions: Array) -> Array:
        """The labels of a batch, int64 B; no image is read."""
        return np.asarray(self.labels[self.rows[positions]])

    def origins(self, positions: Array) -> list[tuple[Array, Array]]:
        """Where the images of a batch are from: arrays of images, and rows in each, in the batch's order."""
        return [(self.images, self.rows[positions])]


class Union:
    """Several data sets, with images of one size, one after the other; nothing is copied."""

    def __init__(self, parts: Sequence[ArrayDataset]) -> None:
        self.parts = list(parts)
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def part_of(self, positions: Array) -> Array:
        """Which part each position lies in, int64 B."""
        return np.searchsorted(self.ends, positions, side="right")

    def take(self, positions: Array) -> tuple[Array, Array]:
        """As `ArrayDataset.take`; positions must ascend."""
        images, labels = zip(*(part.take(own) for part, own in self._cut(positions)), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def pixels_at(self, positions: Array) -> Array:
        """As `ArrayDataset.pixels_at`; positions must ascend."""
        return np.concatenate([part.pixels_at(own) for part, own in self._cut(positions)])

    def labels_at(self, positions: Array) -> Array:
        """As `ArrayDataset.labels_at`; positions must ascend."""
        return np.concatenate([part.labels_at(own) for part, own in self._cut(positions)])

    def origins(self, positions: Array) -> list[tuple[Array, Array]]:
        """As `ArrayDataset.origins`; positions must ascend."""
        return [origin for part, own in self._cut(positions) for origin in part.origins(own)]

    def _cut(self, positions: Array) -> Iterator[tuple[ArrayDataset, Array]]:
        which = self.part_of(positions)
        for index in np.unique(which):
            part = self.parts[index]
            yield part, positions[which == index] - (self.ends[index] - len(part))


def class_counts(labels: Array, classes: int) -> Array:
    """How many images each of the `classes` has."""
    return np.bincount(labels, minlength=classes)


def is_text(inputs: Array) -> bool:
    """Whether these are token ids, int32 N × L."""
    return inputs.dtype == np.int32 and inputs.ndim == 2


def check_images(images: Array, labels: Array, source: str) -> None:
    """Raise DataError unless images are uint8 N × H × W × C with one integer label each."""
    check_array(images, source)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"{source}: images must be uint8 of shape N × H × W × 1 or 3, "
            f"not {images.dtype} of shape {images.shape}."
        )
    if not all(images.shape[1:]):
        raise DataError(f"{source}: images of shape {images.shape} have no pixels.")
    check_labels(images, labels, source)


def check_array(images: object, source: str) -> None:
    """Raise DataError for what is no array of several images: a list, a single number, None."""
    if not hasattr(images, "dtype") or not getattr(images, "shape", ()):
        raise DataError(
            f"{source}: images must be an array, uint8 N × H × W × 1 or 3, not {type(images).__name__}. "
            "np.stack(images) makes one of images of one size."
        )


def check_labels(inputs: Array, labels: Array, source: str) -> None:
    """Raise DataError unless there is one integer label for each image or text."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{source}: labels must be whole numbers, one per image, "
            f"not {labels.dtype} of shape {labels.shape}."
        )
    if len(inputs) != len(labels):
        what = "texts" if is_text(inputs) else "images"
        raise DataError(f"{source}: {len(inputs)} {what}, but {len(labels)} labels.")


def bytes_of(images: Array, bits: int = 16) -> Array:
    """uint16 of so many bits, of any shape, to uint8: the whole range becomes 0 … 255, rounded."""
    largest = 2**bits - 1
    scaled = (images.astype(np.uint32) * 255 + largest // 2) // largest
    return np.asarray(np.minimum(scaled, 255), dtype=np.uint8)


def load_array(file: Path) -> Array:
    """A `.npy` file, memory-mapped; DataError if it is missing, damaged or holds Python objects."""
    with explained(DataError, f"{shown(file)} cannot be read as an array", "Copy it again."):
        if not file.exists():
            raise DataError(f"{shown(file)} is missing.")
        if not file.is_file():
            raise ValueError("it is no regular file")
        found = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("it is an archive of arrays")
        return np.asarray(found)
