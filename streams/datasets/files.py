"""Data sets of image files: torchvision's, and others in the folder layout in which they are published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cl.data.arrays import Array, ArrayDataset
from cl.data.datasets import DataCard, DataSet, missing, stratified_split
from cl.data.files import file_images
from cl.data.unpacking import ARCHIVES
from cl.errors import DataError, explained
from streams.datasets.own import read_folder
from streams.datasets.places import data_folder, fetched

RESEARCH = "research only"

FLIPPED, UPRIGHT = "resized_crop_flip", "crop"
"""How photographs are augmented, as usual for backbones of 224 pixels; and signs, of which no part may go."""


@dataclass(frozen=True)
class Vision:
    """A data set of torchvision: its class there, its splits for training and test, and where it lies.

    Without test splits, a fifth of each class becomes the test set, always the same one.
    """

    source: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    layout: str
    card: DataCard
    augmentation: str = FLIPPED


VISION = {
    "flowers": Vision(
        "Flowers102",
        ("train", "val"),
        ("test",),
        "flowers-102/jpg/image_*.jpg, flowers-102/imagelabels.mat and flowers-102/setid.mat",
        DataCard(102, 2040, 6149, "varies", RESEARCH, "Nilsback and Zisserman, 2008"),
    ),
    "food101": Vision(
        "Food101",
        ("train",),
        ("test",),
        "food-101/images/<class>/*.jpg and food-101/meta/{train,test}.json",
        DataCard(101, 75750, 25250, "varies", "scientific fair use", "Bossard et al., 2014"),
    ),
    "eurosat": Vision(
        "EuroSAT",
        ("",),
        (),
        "eurosat/2750/<class>/*.jpg",
        DataCard(10, 21600, 5400, "64 × 64", "MIT", "Helber et al., 2019"),
    ),
    "dtd": Vision(
        "DTD",
        ("train", "val"),
        ("test",),
        "dtd/dtd/images/<class>/*.jpg and dtd/dtd/labels/{train,val,test}1.txt",
        DataCard(47, 3760, 1880, "varies", RESEARCH, "Cimpoi et al., 2014"),
    ),
    "pets": Vision(
        "OxfordIIITPet",
        ("trainval",),
        ("test",),
        "oxford-iiit-pet/images/*.jpg and oxford-iiit-pet/annotations/{trainval,test}.txt",
        DataCard(37, 3680, 3669, "varies", "CC BY-SA 4.0", "Parkhi et al., 2012"),
    ),
    "gtsrb": Vision(
        "GTSRB",
        ("train",),
        ("test",),
        "gtsrb/GTSRB/Training/<class>/*.ppm, gtsrb/GTSRB/Final_Test/Images/*.ppm and "
        "gtsrb/GT-final_test.csv",
        DataCard(43, 26640, 12630, "varies", "none stated", "Stallkamp et al., 2012"),
        UPRIGHT,
    ),
    "sun397": Vision(
        "SUN397",
        ("",),
        (),
        "SUN397/<letter>/<class>/sun_*.jpg and SUN397/ClassName.txt",
        DataCard(397, 87003, 21751, "varies", RESEARCH, "Xiao et al., 2010"),
    ),
    "cars": Vision(
        "StanfordCars",
        ("train",),
        ("test",),
        "stanford_cars/cars_{train,test}/*.jpg, stanford_cars/devkit/cars_{meta,train_annos}.mat and "
        "stanford_cars/cars_test_annos_withlabels.mat",
        DataCard(196, 8144, 8041, "varies", RESEARCH, "Krause et al., 2013"),
    ),
    "aircraft": Vision(
        "FGVCAircraft",
        ("trainval",),
        ("test",),
        "fgvc-aircraft-2013b/data/images/*.jpg and fgvc-aircraft-2013b/data/*.txt",
        DataCard(100, 6667, 3333, "varies", RESEARCH, "Maji et al., 2013"),
    ),
}

CLASSES = "<class>/*.jpg; a fifth of each class becomes the test set"
SPLIT = "train/<class>/*.jpg and val/<class>/*.jpg (or test/)"
DOMAINS = "<domain>/<class>/*.jpg; a fifth of each class and domain becomes the test set"

FOLDERS = {
    "imagenet1k": (
        SPLIT,
        DataCard(1000, 1281167, 50000, "varies", RESEARCH, "Deng et al., 2009"),
    ),
    "imagenet100": (SPLIT, DataCard(100, 128856, 5000, "varies", RESEARCH, "Deng et al., 2009")),
    "imagenet_r": (
        CLASSES,
        DataCard(200, 24000, 6000, "varies", "MIT (list)", "Hendrycks et al., 2021"),
    ),
    "imagenet_a": (
        CLASSES,
        DataCard(200, 6000, 1500, "varies", "MIT (list)", "Hendrycks et al., 2021"),
    ),
    "resisc45": (
        CLASSES,
        DataCard(45, 25200, 6300, "256 × 256", RESEARCH, "Cheng et al., 2017"),
    ),
    "notmnist": (
        "<letter>/*.png; a fifth of each class becomes the test set",
        DataCard(10, 14979, 3745, "28 × 28", "none stated", "Bulatov, 2011"),
    ),
    "vtab": (
        "train/<class>/*.jpg and test/<class>/*.jpg: the 50 classes of five VTAB data sets",
        DataCard(50, 1796, 8619, "varies", "of its parts", "Zhai et al., 2020"),
    ),
    "domainnet": (
        DOMAINS + " (clipart, infograph, painting, quickdraw, real, sketch)",
        DataCard(345, 469260, 117315, "varies", "fair use", "Peng et al., 2019"),
    ),
    "office_home": (
        DOMAINS + " (Art, Clipart, Product, Real World)",
        DataCard(65, 12470, 3118, "varies", RESEARCH, "Venkateswara et al., 2017"),
    ),
    "pacs": (
        DOMAINS + " (art_painting, cartoon, photo, sketch)",
        DataCard(7, 7993, 1998, "227 × 227", "none stated", "Li et al., 2017"),
    ),
    "core50": (
        "core50_128x128 as <session>/<object>/*.png: s1 … s11, o1 … o50; "
        "a fifth of each object and session becomes the test set",
        DataCard(50, 131892, 32974, "128 × 128", "CC BY 4.0", "Lomonaco and Maltoni, 2017"),
    ),
}
"""Name to the layout under CL_DATA_DIR/<name>, as `streams.own.folder` reads it, and what is known of it."""


def from_folder(name: str, size: int) -> DataSet:
    """A data set of `FOLDERS`, images of `size` pixels a side."""
    layout, card = FOLDERS[name]
    folder = data_folder() / name
    places = (folder, *(folder.with_name(name + suffix) for suffix in ARCHIVES))
    found = next((place for place in places if place.exists()), None)
    if found is None:
        where = f"{name}/{layout}, or all this in an archive {name}.zip (or .tar, .tar.gz …)"
        raise missing(name, folder, where, card)
    return replace(read_folder(str(found), size), name=name, card=card, augmentation=FLIPPED)


def from_torchvision(name: str, size: int) -> DataSet:
    """A data set of `VISION`, images of `size` pixels a side; torchvision finds or downloads the files."""
    from torchvision import datasets

    vision = VISION[name]

    def source(part: str, download: bool) -> Any:
        split = {"split": part} if part else {}
        return getattr(datasets, vision.source)(str(data_folder()), download=download, **split)

    parts = fetched(name, source, [*vision.train, *vision.test], vision.layout, vision.card)
    with explained(DataError, f"The lists of {name} are damaged", "Copy them again."):
        listed = [_listed(part) for part in parts]
        labels = np.concatenate([labels for _, labels in listed])
        known = getattr(parts[0], "classes", None) or range(int(labels.max()) + 1)
        names = tuple(str(label) for label in known)
    train = _joined(listed[: len(vision.train)], size)
    if vision.test:
        test = _joined(listed[len(vision.train) :], size)
        return DataSet(name, train, test, names, vision.augmentation, vision.card)
    kept, held = stratified_split(train.labels, test_share=0.2, seed=0)
    return DataSet(
        name, train.subset(kept), train.subset(held), names, vision.augmentation, vision.card
    )


def cub200(size: int) -> DataSet:
    """CUB-200-2011 as published, in CL_DATA_DIR/CUB_200_2011 (see the error for the files)."""
    card = DataCard(200, 5994, 5794, "varies", RESEARCH, "Wah et al., 2011")
    folder = data_folder() / "CUB_200_2011"
    lists = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    if not all((folder / name).exists() for name in lists):
        raise missing("cub200", folder, f"CUB_200_2011/images/ and {', '.join(lists)}", card)
    with explained(DataError, f"{folder}: its lists are damaged", "Unpack the archive again."):
        files, labels, training, names = (_second_column(folder / name) for name in lists)
        label = np.array([int(each) - 1 for each in labels], dtype=np.int64)
    if not len(files) == len(labels) == len(training):
        raise DataError(f"{folder}: its lists have different lengths; unpack the archive again.")
    images = file_images([folder / "images" / name for name in files], size, f"files/{size}")
    chosen = np.array([each == "1" for each in training])
    return DataSet(
        "cub200",
        ArrayDataset(images, label, np.flatnonzero(chosen)),
        ArrayDataset(images, label, np.flatnonzero(~chosen)),
        tuple(name.partition(".")[2] for name in names),
        FLIPPED,
        card,
    )


def _listed(part: Any) -> tuple[list[Path], Array]:
    """The files and labels that a torchvision data set holds, in the order of the files' names."""
    pairs = next(
        (getattr(part, name) for name in ("_samples", "samples") if hasattr(part, name)), None
    )
    if pairs is None:
        name = next(name for name in ("_image_files", "_images") if hasattr(part, name))
        pairs = zip(getattr(part, name), part._labels, strict=True)
    found = sorted((Path(file), int(label)) for file, label in pairs)
    return [file for file, _ in found], np.array([label for _, label in found], dtype=np.int64)


def _joined(listed: Sequence[tuple[list[Path], Array]], size: int) -> ArrayDataset:
    files = [file for found, _ in listed for file in found]
    labels = np.concatenate([labels for _, labels in listed])
    return ArrayDataset.of(file_images(files, size, f"files/{size}"), labels)


def _second_column(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.strip()]
