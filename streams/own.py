"""Streams of your own images: arrays, folders, Hugging Face. Other streams take them as their data set."""

from __future__ import annotations

from collections.abc import Sequence

from cl.errors import require
from cl.stream import Stream
from streams.classes import class_incremental
from streams.datasets.hub import read_hub
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
    test: str | None = None,
    layout: str | None = None,
    follow_links: bool = False,
    seed: int = 0,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """Your own image files, in one of three layouts under `root`, a folder or a zip or tar archive of it.

    `class/image`: class-incremental; `test_share` of each class becomes the test set, drawn with `seed` and
    written into the run folder. `train/class/image` and `test/class/image`, in any spelling: the split is
    yours; test names the part, of several; with `train` alone, a share of it is the test set.
    `domain/class/image`, the same classes in all: domain-incremental, an experience per domain; tasks and the
    order do not matter. layout: "classes" or "domains" where the names of the folders do not tell.
    An archive is unpacked once, beside itself, after a look at all that is in it. A single folder around
    everything is passed over. follow_links: read links that lead out of root, and linked folders.
    image_size: the side in pixels to which an image is scaled and cut when it is read. skip_unreadable:
    open every file beforehand and leave out what cannot be decoded; otherwise such a file is an error.
    """
    require(image_size >= 1, f"stream.image_size={image_size}: it must be at least 1.")
    data = read_folder(
        root, image_size, test_share, seed, skip_unreadable, test, layout, follow_links
    )
    if data.domain_names:
        return domain_incremental(data)
    return class_incremental(data, tasks, order_seed=order_seed, class_order=class_order)


def hf(
    name: str,
    subset: str | None = None,
    image: str | None = None,
    label: str | None = None,
    train: str = "train",
    test: str | None = None,
    tasks: int = 5,
    image_size: int = 64,
    test_share: float = 0.2,
    seed: int = 0,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """Class-incremental, from a data set of Hugging Face (needs `pip install "palimpsest[hf]"`).

    name: as on huggingface.co/datasets, or a folder with what `save_to_disk` wrote or with its data files.
    subset: the configuration, if there are several. image, label: the columns; null finds the one
    that is an Image and the one that is a ClassLabel, whose names are those of the classes. A label may
    also be a number or a word. train, test: the splits; null for test takes "test" or "validation"; if there
    is none, `test_share` of each class becomes the test set, drawn with `seed`. image_size: the side in
    pixels to which an image is scaled and cut when it is read. Other scenarios take "hf:<name>" as dataset.
    """
    require(image_size >= 1, f"stream.image_size={image_size}: it must be at least 1.")
    data = read_hub(name, image_size, subset, image, label, train, test, test_share, seed)
    return class_incremental(data, tasks, order_seed=order_seed, class_order=class_order)
