"""Data sets of one's own: arrays in `.npz` or `.npy` files, and folders of images."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cl.data.arrays import Array, ArrayDataset, load_array
from cl.data.datasets import DataSet, stratified_split
from cl.data.files import file_images, image_files, subfolders, unreadable
from cl.data.unpacking import check_npz, is_archive, unpacked
from cl.errors import DataError, require

TEST_FOLDERS = ("test", "val", "valid", "validation")
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
) -> DataSet:
    """A data set of image files under `root`, a folder or an archive (see `streams.own.folder`)."""
    path = Path(root).expanduser()
    if path.is_file() and is_archive(path):
        inside = read_folder(str(unpacked(path)), image_size, test_share, seed, skip_unreadable)
        return replace(inside, name=path.name.partition(".")[0])
    if not path.is_dir():
        raise DataError(f"stream.root={root}: there is no such folder, nor a zip or tar archive.")
    folders = subfolders(path)
    if not folders:
        raise DataError(
            f"{path}: there is no folder in it; it needs one folder of images per class."
        )
    names = {folder.name.lower(): folder for folder in folders}
    test = next((names[name] for name in TEST_FOLDERS if name in names), None)
    if "train" in names and test is not None:
        return _split_by_folder(path.name, names["train"], test, image_size, skip_unreadable)
    if all(subfolders(folder) for folder in folders):
        return _domains(path, folders, image_size, test_share, seed, skip_unreadable)
    files, labels = _classes(folders, skip_unreadable)
    images = file_images(files, image_size, f"files/{image_size}")
    train, held = stratified_split(labels, test_share, seed)
    class_names = tuple(folder.name for folder in folders)
    parts = (ArrayDataset(images, labels, train), ArrayDataset(images, labels, held))
    return DataSet(path.name, *parts, class_names, "crop_flip")


def _split_by_folder(
    name: str, train: Path, test: Path, image_size: int, skip_unreadable: bool
) -> DataSet:
    known, tested = ([folder.name for folder in subfolders(part)] for part in (train, test))
    if known != tested:
        only = {train: sorted(set(known) - set(tested)), test: sorted(set(tested) - set(known))}
        told = "; ".join(f"only in {part}: {', '.join(c[:5])}" for part, c in only.items() if c)
        raise DataError(f"{name}: training and test folders have different classes: {told}.")
    parts = []
    for part in (train, test):
        files, labels = _classes(subfolders(part), skip_unreadable)
        images = file_images(files, image_size, f"files/{image_size}")
        parts.append(ArrayDataset.of(images, labels))
    return DataSet(name, parts[0], parts[1], tuple(known), "crop_flip")


def _domains(
    path: Path,
    folders: Sequence[Path],
    image_size: int,
    test_share: float,
    seed: int,
    skip_unreadable: bool,
) -> DataSet:
    class_names = sorted({folder.name for domain in folders for folder in subfolders(domain)})
    files: list[Path] = []
    labels, domains = [], []
    for index, domain in enumerate(folders):
        found, numbers = _classes(subfolders(domain), skip_unreadable)
        own = np.array([class_names.index(folder.name) for folder in subfolders(domain)])
        files += found
        labels.append(own[numbers])
        domains.append(np.full(len(found), index))
    label, domain_of = np.concatenate(labels), np.concatenate(domains)
    images = file_images(files, image_size, f"files/{image_size}")
    train, test = stratified_split(domain_of * len(class_names) + label, test_share, seed)
    return DataSet(
        path.name,
        ArrayDataset(images, label, train),
        ArrayDataset(images, label, test),
        tuple(class_names),
        "crop_flip",
        domain_names=tuple(folder.name for folder in folders),
        train_domains=domain_of[train],
        test_domains=domain_of[test],
    )


def _classes(folders: Sequence[Path], skip_unreadable: bool) -> tuple[list[Path], Array]:
    """The files of class folders and their labels, which number the folders."""
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = image_files(folder)
        if skip_unreadable:
            bad = set(unreadable(found))
            found = [file for index, file in enumerate(found) if index not in bad]
        if not found:
            raise DataError(f"{folder}: there is no image in it.")
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, dtype=np.int64)


def _npz(path: Path) -> dict[str, Array]:
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as arrays: {error}.") from None


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
        f"{path}: it holds {', '.join(sorted(content))}; it needs {' and '.join(keys[0])}."
    )
