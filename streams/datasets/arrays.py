"""Data sets that are arrays: digits, MNIST, Fashion-MNIST, SVHN, CIFAR, Tiny-ImageNet."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cl.checkpoint import replace_text
from cl.data.arrays import Array, ArrayDataset, check_images, load_array
from cl.data.datasets import DataCard, DataSet, missing, stratified_split
from cl.data.sharing import alone, aside, clear
from cl.errors import DataError, explained
from cl.names import class_names
from cl.stored import load_json
from streams.datasets.places import data_folder, fetched

DIGITS = DataCard(10, 1438, 359, "8 × 8", "CC BY 4.0", "Alpaydin and Kaynak, 1998")
MNIST = DataCard(10, 60000, 10000, "28 × 28", "CC BY-SA 3.0", "LeCun et al., 1998")
FASHION = DataCard(10, 60000, 10000, "28 × 28", "MIT", "Xiao et al., 2017")
SVHN = DataCard(10, 73257, 26032, "32 × 32", "non-commercial use only", "Netzer et al., 2011")
CIFAR = {
    classes: DataCard(classes, 50000, 10000, "32 × 32", "none stated", "Krizhevsky, 2009")
    for classes in (10, 100)
}
TINY = DataCard(200, 100000, 10000, "64 × 64", "ImageNet's: research only", "Le and Yang, 2015")
LAYOUT = "train_images.npy, train_labels.npy, test_images.npy, test_labels.npy and classes.json"


def digits() -> DataSet:
    """Scikit-learn's handwritten digits, 8 × 8 pixels; a fifth of each class is the test set.

    No augmentation: a mirrored digit is another sign.
    """
    values, labels = np.split(_digits_table(), [64], axis=1)
    grey = np.round(values.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    labels = labels[:, 0].astype(np.int64)
    train, test = stratified_split(labels, test_share=0.2, seed=0)
    names = tuple(str(digit) for digit in range(10))
    parts = (ArrayDataset(grey, labels, train), ArrayDataset(grey, labels, test))
    return DataSet("digits", *parts, names, card=DIGITS)


def _digits_table() -> npt.NDArray[np.float64]:
    """A row per image: 64 values from 0 to 16, and the label."""
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.exists():  # read as scikit-learn does, without the second that its import takes
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    source = load_digits()
    return np.column_stack([source.data, source.target])


def mnist() -> DataSet:
    """MNIST in torchvision's layout: CL_DATA_DIR/MNIST/raw/{train,t10k}-*-ubyte."""
    from torchvision import datasets

    return _ubyte("mnist", datasets.MNIST, "MNIST/raw/{train,t10k}-*-ubyte", MNIST)


def fashion_mnist() -> DataSet:
    """Fashion-MNIST in torchvision's layout: CL_DATA_DIR/FashionMNIST/raw/{train,t10k}-*-ubyte."""
    from torchvision import datasets

    layout = "FashionMNIST/raw/{train,t10k}-*-ubyte"
    return _ubyte("fashion_mnist", datasets.FashionMNIST, layout, FASHION, "crop_flip")


def svhn() -> DataSet:
    """Street View house numbers in torchvision's layout: CL_DATA_DIR/svhn/{train,test}_32x32.mat."""
    from torchvision import datasets

    folder = str(data_folder() / "svhn")
    parts = fetched(
        "svhn",
        lambda part, down: datasets.SVHN(folder, split=part, download=down),
        ("train", "test"),
        "svhn/train_32x32.mat and svhn/test_32x32.mat",
        SVHN,
    )
    with explained(DataError, f"The files in {folder} are damaged", "Copy them again."):
        train, test = (
            ArrayDataset.of(np.ascontiguousarray(part.data.transpose(0, 2, 3, 1)), part.labels)
            for part in parts
        )
    return DataSet("svhn", train, test, tuple("0123456789"), "crop", SVHN)


def cifar10() -> DataSet:
    """CIFAR-10 as arrays in CL_DATA_DIR/cifar10 (see `array_folder`), else from torchvision."""
    return _cifar(10)


def cifar100() -> DataSet:
    """CIFAR-100 as arrays in CL_DATA_DIR/cifar100 (see `array_folder`), else from torchvision."""
    return _cifar(100)


def tiny_imagenet() -> DataSet:
    """Tiny-ImageNet as arrays in CL_DATA_DIR/tiny_imagenet (see `array_folder`).

    Without test arrays, a fifth of each class's training images is the test set, always the same.
    """
    folder = data_folder() / "tiny_imagenet"
    if not (folder / "classes.json").exists():
        raise missing("tiny_imagenet", folder, LAYOUT, TINY)
    return array_folder("tiny_imagenet", folder, "crop_flip", TINY)


def array_folder(
    name: str, folder: Path, augmentation: str = "none", card: DataCard | None = None
) -> DataSet:
    """A data set kept as `{train,test}_{images,labels}.npy` and `classes.json`, memory-mapped.

    Images are uint8 N × H × W × C. Without test files, a fifth of each class becomes the test set.
    """
    names = _class_names(folder / "classes.json")
    train = _arrays(folder, "train", len(names))
    if (folder / "test_images.npy").exists() or (folder / "test_labels.npy").exists():
        return DataSet(name, train, _arrays(folder, "test", len(names)), names, augmentation, card)
    kept, held = stratified_split(train.labels, test_share=0.2, seed=0)
    return DataSet(name, train.subset(kept), train.subset(held), names, augmentation, card)


def _class_names(file: Path) -> tuple[str, ...]:
    with explained(DataError, f"{file} cannot be read", "It must be a list of the classes' names."):
        names = load_json(file)
        if not isinstance(names, list) or not names:
            raise ValueError("it is no list")
        return class_names(names, file)


def _arrays(folder: Path, part: str, classes: int) -> ArrayDataset:
    images = load_array(folder / f"{part}_images.npy")
    labels = load_array(folder / f"{part}_labels.npy")
    check_images(images, labels, f"{folder}/{part}_*.npy")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"{folder / f'{part}_labels.npy'}: labels {labels.min()} … {labels.max()}, "
            f"but classes.json names {classes} classes."
        )
    return ArrayDataset.of(images, np.array(labels, dtype=np.int64))


def _ubyte(
    name: str, source: Callable[..., Any], layout: str, card: DataCard, augmentation: str = "none"
) -> DataSet:
    parts = fetched(
        name,
        lambda part, down: source(str(data_folder()), train=part == "train", download=down),
        ("train", "test"),
        layout,
        card,
    )
    with explained(DataError, f"The files of {name} are damaged", "Copy them again."):
        train, test = (
            ArrayDataset.of(part.data.numpy()[..., None], part.targets.numpy().astype(np.int64))
            for part in parts
        )
    names = tuple(label.split(" - ")[0] for label in parts[0].classes)
    return DataSet(name, train, test, names, augmentation, card)


def _cifar(classes: int) -> DataSet:
    """The arrays; where they are missing, torchvision's archive is converted to them once."""
    name, card = f"cifar{classes}", CIFAR[classes]
    folder = data_folder() / name
    if not (folder / "classes.json").exists():
        layout = f"{name}/ with {LAYOUT}"
        try:
            with alone(folder):
                if not (folder / "classes.json").exists():
                    _convert_cifar(classes, folder, layout)
        except OSError as error:
            reason = f"and cannot be converted to arrays there: {error}"
            raise missing(name, folder.parent, layout, card, reason) from None
    return array_folder(name, folder, "crop_flip", card)


def _convert_cifar(classes: int, folder: Path, layout: str) -> None:
    """Write the arrays, each to the side first, and at last the names of the classes."""
    from torchvision import datasets

    source = datasets.CIFAR100 if classes == 100 else datasets.CIFAR10
    parts = fetched(
        folder.name,
        lambda part, down: source(str(folder.parent), train=part == "train", download=down),
        ("train", "test"),
        layout,
        CIFAR[classes],
    )
    folder.mkdir(parents=True, exist_ok=True)
    for part, data in zip(("train", "test"), parts, strict=True):
        _save(data.data, folder / f"{part}_images.npy")
        _save(np.asarray(data.targets, dtype=np.int64), folder / f"{part}_labels.npy")
    replace_text(folder / "classes.json", json.dumps(parts[0].classes))


def _save(array: Array, file: Path) -> None:
    clear(file)
    beside = aside(file)
    with beside.open("wb") as out:
        np.save(out, array)
    beside.replace(file)
