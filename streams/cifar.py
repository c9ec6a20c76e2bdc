"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 images of 32 × 32 pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cl.data import ArrayDataset
from cl.data.arrays import check_images, load_array
from cl.errors import DataError, require, suggest
from cl.stream import Stream, class_incremental, shuffled_classes

DATASETS = ("cifar10", "cifar100")


def split_cifar(
    dataset: str = "cifar100",
    tasks: int = 10,
    order_seed: int | None = 1993,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """CIFAR in `tasks` class-incremental tasks, with crops and flips in training.

    order_seed: shuffles the classes; 1993 is the order of most papers, null keeps the data set's own.
    class_order: the order itself. The data are read from `CL_DATA_DIR` (default ./data) as arrays
    `<dataset>/{train,test}_{images,labels}.npy` and `classes.json`; where these are missing,
    torchvision downloads the archive, checks it, and it is converted to these arrays once.
    """
    require(dataset in DATASETS, f"stream.dataset={dataset}: {suggest(dataset, DATASETS)}")
    folder = Path(os.environ.get("CL_DATA_DIR", "data")) / dataset
    if not (folder / "classes.json").exists():
        _download(dataset, folder)
    names = json.loads((folder / "classes.json").read_text())
    return class_incremental(
        "split_cifar",
        _arrays(folder, "train", len(names)),
        _arrays(folder, "test", len(names)),
        names,
        tasks,
        class_order or shuffled_classes(len(names), order_seed),
        augmentation="crop_flip",
    )


def _arrays(folder: Path, part: str, classes: int) -> ArrayDataset:
    images = load_array(folder / f"{part}_images.npy")
    labels = load_array(folder / f"{part}_labels.npy")
    check_images(images, labels, f"{folder}/{part}_*.npy")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"{folder / f'{part}_labels.npy'}: labels {labels.min()} … {labels.max()}, "
            f"but classes.json names {classes} classes."
        )
    return ArrayDataset.of(images, np.asarray(labels))


def _download(dataset: str, folder: Path) -> None:
    """Let torchvision fetch and verify the archive, and convert it to our arrays."""
    from torchvision import datasets

    source = datasets.CIFAR100 if dataset == "cifar100" else datasets.CIFAR10
    try:
        parts = {
            part: source(str(folder.parent), train=part == "train", download=True)
            for part in ("train", "test")
        }
    except Exception as error:  # torchvision raises many kinds: no network, refused, wrong checksum
        raise DataError(
            f"{dataset} is not in {folder.parent} and could not be downloaded ({error}).\n"
            f"Put train_images.npy, train_labels.npy, test_images.npy, test_labels.npy and "
            f"classes.json into {folder}, or set CL_DATA_DIR to the folder that holds {dataset}/.\n"
            "A stream that needs no download: python run.py stream=split_digits"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    for part, data in parts.items():
        np.save(folder / f"{part}_images.npy", data.data)
        np.save(folder / f"{part}_labels.npy", np.asarray(data.targets, dtype=np.int64))
    (folder / "classes.json").write_text(json.dumps(data.classes))
