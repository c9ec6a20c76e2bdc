"""Streams of your own images: arrays and folders. Every other stream takes their path as its data set."""

from __future__ import annotations

from collections.abc import Sequence

from cl.errors import require
from cl.stream import Stream
from streams.classes import class_incremental
from streams.datasets.own import read_arrays, read_folder
from streams.domains import domain_incremental


def arrays(
    file: str,
    labels: str | None = None,
    test_file: str | None = None,
    test_labels: str | None = None,
    tasks: int = 5,
    test_share: float = 0.2,
    seed: int = 0,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """Class-incremental, from a `.npz` file or from `.npy` files.

    file: a `.npz` with `images` and `labels`, and `test_images` and `test_labels` if there are any (or as
    MedMNIST has them: `train_images`, `train_labels`, …), or the `.npy` file of the images, uint8
    N × H × W × C; then labels is that of the labels. Without test images, `test_share` of each class
    becomes the test set, drawn with `seed`.
    """
    data = read_arrays(file, labels, test_file, test_labels, test_share, seed)
    return class_incremental(data, tasks, order_seed=order_seed, class_order=class_order)


def folder(
    root: str,
    tasks: int = 5,
    image_size: int = 64,
    test_share: float = 0.2,
    skip_unreadable: bool = False,
    seed: int = 0,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """Your own image files, in one of three layouts under `root`.

    `class/image`: class-incremental; `test_share` of each class becomes the test set, drawn with `seed` and
    written into the run folder. `train/class/image` and `test/class/image`: the split is yours.
    `domain/class/image`: domain-incremental, an experience per domain; tasks and the order do not matter.
    image_size: the side in pixels to which an image is scaled and cut when it is read. skip_unreadable:
    open every file beforehand and leave out what cannot be decoded; otherwise such a file is an error.
    """
    require(image_size >= 1, f"stream.image_size={image_size}: it must be at least 1.")
    data = read_folder(root, image_size, test_share, seed, skip_unreadable)
    if data.domain_names:
        return domain_incremental(data)
    return class_incremental(data, tasks, order_seed=order_seed, class_order=class_order)
