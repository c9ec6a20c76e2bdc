"""A data set: training and test images of the same classes, before any scenario cuts it up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cl.data.arrays import Array, ArrayDataset, bytes_of, check_images
from cl.data.computed import computed
from cl.errors import DataError
from cl.names import class_names, shown


@dataclass(frozen=True)
class DataCard:
    """What is known of a published data set without having it.

    train, test: how many images. size: of an image in pixels, "varies" where it does. licence: as the
    authors state it. source: authors and year.
    """

    classes: int
    train: int
    test: int
    size: str
    licence: str
    source: str


class MissingDataError(DataError):
    """A data set is not on this machine, and must not or cannot be downloaded."""

    def __init__(self, message: str, card: DataCard | None = None) -> None:
        super().__init__(message)
        self.card = card


@dataclass(frozen=True)
class DataSet:
    """Training and test images that share their classes.

    class_names: by label; they are normalised (see `cl.names.class_name`). augmentation: a key of
    `cl.data.AUGMENTATIONS` that suits the images.
    train_domains, test_domains: for each row of `train` and `test` which of `domain_names` it is from
    (int64), where the data set has domains. about: what was found in one's own files, on one line.
    """

    name: str
    train: ArrayDataset
    test: ArrayDataset
    class_names: tuple[str, ...]
    augmentation: str = "none"
    card: DataCard | None = None
    domain_names: tuple[str, ...] = ()
    train_domains: Array | None = None
    test_domains: Array | None = None
    about: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shown(self.name))
        for key in ("class_names", "domain_names"):
            object.__setattr__(self, key, class_names(getattr(self, key), self.name))
        train, test = set(np.unique(self.train.targets)), set(np.unique(self.test.targets))
        classes = set(range(len(self.class_names)))
        if unknown := sorted((train | test) - classes):
            raise DataError(
                f"{self.name}: labels {_some(unknown)}, but there are {len(classes)} class names."
            )
        for known, what in ((train, "training"), (test, "test")):
            if empty := [self.class_names[label] for label in sorted(classes - known)]:
                raise DataError(f"{self.name}: no {what} images of {_some(empty)}.")

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @classmethod
    def of(
        cls,
        images: Array,
        labels: Array,
        test_images: Array | None = None,
        test_labels: Array | None = None,
        class_names: tuple[str, ...] = (),
        name: str = "arrays",
        test_share: float = 0.2,
        seed: int = 0,
    ) -> DataSet:
        """A data set of uint8 images N × H × W × C (or N × H × W) and labels 0 … classes − 1.

        Without test images, `test_share` of each class becomes the test set; the same `seed` always
        chooses the same images. Without class names, the labels are their names.
        """
        images, labels = as_images(images, name), np.asarray(labels)
        check_images(images, labels, name)
        check_contiguous(labels, name)
        names = class_names or tuple(str(label) for label in range(int(labels.max()) + 1))
        labels = labels.astype(np.int64)
        if test_images is None or test_labels is None:
            if (test_images is None) != (test_labels is None):
                raise DataError(f"{name}: give test images and test labels, or neither.")
            train, test = stratified_split(labels, test_share, seed)
            return cls(
                name, ArrayDataset(images, labels, train), ArrayDataset(images, labels, test), names
            )
        test_images, test_labels = as_images(test_images, name), np.asarray(test_labels)
        check_images(test_images, test_labels, f"{name}, test")
        if images.shape[3] != test_images.shape[3]:
            raise DataError(
                f"{name}: training images have {images.shape[3]} channels, "
                f"test images {test_images.shape[3]}."
            )
        test_data = ArrayDataset.of(test_images, test_labels.astype(np.int64))
        return cls(name, ArrayDataset.of(images, labels), test_data, names)


def as_images(images: Array, name: str) -> Array:
    """Images as uint8 N × H × W × C: a missing channel axis is added, uint16 is scaled to 0 … 255 when it is
    read, and other types are refused."""
    deep = images.dtype.kind == "u" and images.dtype.itemsize == 2
    if images.ndim == 3 and (deep or images.dtype == np.uint8):
        images = images[..., None]
    if images.ndim == 4 and deep:
        return computed(images.shape, lambda rows: bytes_of(images[rows]), "uint16")
    if images.dtype.kind == "f":
        raise DataError(
            f"{name}: images are {images.dtype}. Give bytes 0 … 255: "
            "(255 * images).round().astype(np.uint8) if they are in [0, 1]."
        )
    return images


def check_contiguous(labels: Array, name: str) -> None:
    """Raise DataError unless the labels are exactly 0 … classes − 1."""
    if not len(labels):
        raise DataError(f"{name}: there is no image.")
    present = np.unique(labels)
    if present[0] < 0 or present[-1] != len(present) - 1:
        raise DataError(
            f"{name}: labels must be 0 … {len(present) - 1} without gaps, not {_some(present)}. "
            "np.unique(labels, return_inverse=True)[1] numbers them so."
        )


def stratified_split(labels: Array, test_share: float, seed: int) -> tuple[Array, Array]:
    """Rows for training and for test, `test_share` of each class in the test set; always the same."""
    generator = np.random.RandomState(seed)
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        test[rows[: max(1, round(test_share * len(rows)))]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def missing(
    name: str,
    folder: object,
    layout: str,
    card: DataCard | None = None,
    reason: object = "nothing there",
) -> MissingDataError:
    """The error that says where the data set is looked for and what must lie there."""
    return MissingDataError(
        f"{name} is not in {folder} ({reason}). Put there:\n{layout}\n"
        f"or set CL_DATA_DIR to the folder that holds {name}/.\n"
        "A stream that needs no download: python run.py stream=split_digits",
        card,
    )


def _some(items: Iterable[object], limit: int = 5) -> str:
    listed = [str(item) for item in items]
    return ", ".join(listed[:limit]) + (" …" if len(listed) > limit else "")
