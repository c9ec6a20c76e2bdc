"""Data sets of one's own: arrays in `.npz` or `.npy` files, and folders of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cl.data.arrays import Array, load_array
from cl.data.datasets import DataSet
from cl.data.folders import Folders
from cl.data.unpacking import check_npz, is_archive, unpacked
from cl.errors import DataError, explained, require
from cl.names import shown
from streams.datasets.layouts import understood

KEYS = (("images", "labels"), ("train_images", "train_labels"), ("x_train", "y_train"))
TEST_KEYS = (("test_images", "test_labels"), ("x_test", "y_test"))


def read(path: str, image_size: int) -> DataSet:
    """The data set at a path: a `.npz` file, or a folder or archive of images (see `read_folder`)."""
    return read_arrays(path) if path.endswith(".npz") else read_folder(path, image_size)


def read_arrays(
    file: str,
    labels: str | None = None,
    test_file: str | None = None,
    test_labels: str | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> DataSet:
    """A data set in one `.npz` file, or in `.npy` files of images and labels (see `streams.own.arrays`)."""
    path = Path(file)
    if path.suffix == ".npz":
        content = _npz(path)
        train = _pick(content, KEYS, path)
        test: tuple[Any, Any] = (None, None)
        if any(images in content for images, _ in TEST_KEYS):
            test = _pick(content, TEST_KEYS, path)
        return DataSet.of(*train, *test, name=path.stem, test_share=test_share, seed=seed)
    require(labels is not None, f"stream.file={file}: give stream.labels=….npy too.")
    require(
        (test_file is None) == (test_labels is None),
        "stream.test_file and stream.test_labels: give both or neither.",
    )
    loaded = [load_array(Path(p)) for p in (file, labels, test_file, test_labels) if p is not None]
    train, test = (loaded[0], loaded[1]), tuple(loaded[2:]) or (None, None)
    return DataSet.of(*train, *test, name=path.stem, test_share=test_share, seed=seed)


def read_folder(
    root: str,
    image_size: int,
    test_share: float = 0.2,
    seed: int = 0,
    skip_unreadable: bool = False,
    test: str | None = None,
    layout: str | None = None,
    follow_links: bool = False,
) -> DataSet:
    """A data set of image files under `root`, a folder or an archive (see `streams.own.folder`)."""
    path = Path(root).expanduser()
    name = path.name
    if is_archive(path) and os.path.isfile(path):  # noqa: PTH113 (a name too long for a file is none)
        path, name = unpacked(path), path.name.partition(".")[0]
    if not os.path.isdir(path):  # noqa: PTH112
        raise DataError(
            f"stream.root={shown(root)}: there is no such folder, nor a zip or tar archive."
        )
    known = understood(Folders(path, follow_links), test, layout)
    return known.data_set(
        name or path.resolve().name, image_size, test_share, seed, skip_unreadable
    )


def _npz(path: Path) -> dict[str, Array]:
    with explained(DataError, f"{shown(path)} cannot be read as arrays", "Copy it again."):
        if not path.exists():
            raise DataError(f"{shown(path)} is missing.")
        if not path.is_file():
            raise ValueError("it is no regular file")
        check_npz(path)
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def _pick(
    content: dict[str, Array], keys: Sequence[tuple[str, str]], path: Path
) -> tuple[Array, Array]:
    for images, labels in keys:
        if images in content and labels in content:
            numbers = content[labels]
            if numbers.ndim == 2 and numbers.shape[1] == 1:  # MedMNIST has them as a column
                numbers = numbers[:, 0]
            return content[images], numbers
    raise DataError(
        f"{shown(path)}: it holds {shown(', '.join(sorted(content)))}; it needs {' and '.join(keys[0])}."
    )
