"""How a folder of images is understood: which folders are parts, which domains, and which classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cl.data.arrays import Array, ArrayDataset
from cl.data.datasets import DataSet, stratified_split
from cl.data.decoding import headless, unreadable
from cl.data.files import file_images
from cl.data.folders import Folders, part_of, without_wrapper
from cl.errors import DataError, require_one_of, suggest
from cl.names import class_names, shown

TEST_ORDER = ("test", "val", "valid", "validation")
"""Which part is the test set if there are several, and stream.test does not say it."""

LAYOUTS = """One of these layouts is needed:
  class/image
  train/class/image and test/class/image
  domain/class/image, the same classes in every domain
stream.layout=classes takes each of its folders for a class, with all that is inside; stream.layout=domains
takes each for a domain."""


@dataclass(frozen=True)
class Layout:
    """The class folders of the training images, and of the test images where they have their own.

    domains: folders of class folders; then `train` is empty.
    """

    folders: Folders
    train: Sequence[Path] = ()
    test: Sequence[Path] = ()
    domains: Sequence[Path] = field(default=())

    def data_set(
        self, name: str, size: int, test_share: float, seed: int, skip_unreadable: bool
    ) -> DataSet:
        """The images as a data set; a DataError for a class without images."""
        reader = _Reader(self.folders, size, skip_unreadable)
        if self.domains:
            return reader.domains(name, self.domains, test_share, seed)
        if self.test:
            return reader.parts(name, self.train, self.test)
        return reader.classes(name, self.train, test_share, seed)


def understood(folders: Folders, test: str | None = None, layout: str | None = None) -> Layout:
    """The layout of a folder; DataError if it could be more than one.

    test: the name of the folder of the test images. layout: "classes" or "domains", where the names of
    the folders do not tell.
    """
    if layout is not None:
        require_one_of("stream.layout", layout, ("classes", "domains"))
    root = without_wrapper(folders, folders.root)
    inner = folders.subfolders(root)
    if not inner:
        raise DataError(
            f"{shown(root)}: there is no folder in it; it needs one folder of images per class."
        )
    parts = [folder for folder in inner if part_of(folder.name)]
    if not parts:  # seg_train and seg_test, where there is nothing else
        parts = [folder for folder in inner if part_of(folder.name, prefix=True)]
        if {part_of(folder.name, prefix=True) for folder in parts} != {"train", "test"}:
            parts = []
    if parts and layout is None:
        return _parts(folders, root, inner, parts, test)
    if test is not None:
        raise DataError(f"stream.test={shown(test)}: {shown(root)} has no folders train and test.")
    if layout == "domains" or (layout is None and _are_domains(folders, root, inner)):
        return Layout(folders, domains=inner)
    return Layout(folders, train=inner)


def _parts(
    folders: Folders, root: Path, inner: Sequence[Path], parts: Sequence[Path], test: str | None
) -> Layout:
    """Training and test images in folders of their own."""
    names = {folder.name: folder for folder in parts}
    for other in (folder for folder in inner if folder not in parts):
        if folders.images(other):
            raise DataError(
                f"{shown(root)}: {shown(', '.join(names))} would be parts of the data set, but there is also "
                f"{shown(other.name)}. {LAYOUTS}"
            )
    train = [folder for folder in parts if part_of(folder.name, prefix=True) == "train"]
    if len(train) != 1:
        raise DataError(
            f"{shown(root)}: {shown(', '.join(names))}: one of them must be the training images. {LAYOUTS}"
        )
    tests = {name: folder for name, folder in names.items() if folder != train[0]}
    if test is not None and test not in tests:
        raise DataError(f"stream.test={shown(test)}: {shown(suggest(test, tests))}")
    chosen = test or min(tests, key=_rank, default=None)
    for name in tests.keys() - {chosen}:
        folders.leave_out("other parts", tests[name])
    known = folders.subfolders(without_wrapper(folders, train[0]))
    if not known:
        raise DataError(f"{shown(train[0])}: there is no folder of a class in it. {LAYOUTS}")
    if chosen is None:
        return Layout(folders, known)
    tested = folders.subfolders(without_wrapper(folders, tests[chosen]))
    _check_same(root, train[0], known, tests[chosen], tested)
    return Layout(folders, known, tested)


def _rank(name: str) -> tuple[int, str]:
    """Test before validation, whatever is around the word."""
    place = [index for index, word in enumerate(TEST_ORDER) if word in name.lower()]
    return min(place, default=len(TEST_ORDER)), name


def _check_same(
    root: Path, train: Path, known: Sequence[Path], test: Path, tested: Sequence[Path]
) -> None:
    of_train, of_test = (set(_names(classes, root)) for classes in (known, tested))
    only = {train: sorted(of_train - of_test), test: sorted(of_test - of_train)}
    told = "; ".join(f"only in {shown(part)}: {', '.join(c[:5])}" for part, c in only.items() if c)
    if told:
        raise DataError(
            f"{shown(root)}: training and test folders have different classes: {told}. {LAYOUTS}"
        )


def _are_domains(folders: Folders, root: Path, inner: Sequence[Path]) -> bool:
    """Whether the folders hold the same folders; DataError if they hold folders, but others."""
    below = [folders.subfolders(folder) for folder in inner]
    if not all(below) or any(map(folders.has_images, inner)):
        return False
    held = [set(_names(each, folder)) for each, folder in zip(below, inner, strict=True)]
    if all(len(each) == 1 for each in held) and len(set.union(*held)) == 1:
        return False  # class/images/image
    often = Counter(name for each in held for name in each)
    shared = [sum(often[name] > 1 for name in each) / len(each) for each in held]
    if min(shared) < 0.5 or any(part_of(name) for name in often):
        first = [
            f"{folder.name}/{names[0].name}" for folder, names in zip(inner, below, strict=True)
        ]
        raise DataError(
            f"{shown(root)}: its folders hold folders ({shown(', '.join(first[:3]))} …), which are not the "
            f"same classes everywhere, as in domains. {LAYOUTS}"
        )
    return True


@dataclass(frozen=True)
class _Reader:
    """Makes data sets of class folders; images have `size` pixels a side."""

    folders: Folders
    size: int
    skip_unreadable: bool

    def classes(self, name: str, train: Sequence[Path], test_share: float, seed: int) -> DataSet:
        """A share of each class becomes the test set."""
        images, labels = self._read(train)
        kept, held = stratified_split(labels, test_share, seed)
        parts = (ArrayDataset(images, labels, kept), ArrayDataset(images, labels, held))
        names = _names(train, self.folders.root)
        about = self._about(f"{len(names)} classes, {len(labels):,} images")
        return DataSet(name, *parts, names, "crop_flip", about=about)

    def parts(self, name: str, train: Sequence[Path], test: Sequence[Path]) -> DataSet:
        """Test images of their own; the folders of a class may be spelt differently in the two."""
        names = _names(train, self.folders.root)
        order = [names.index(each) for each in _names(test, self.folders.root)]
        images, labels = self._read(train)
        tested, numbers = self._read(test)
        own = np.array(order, dtype=np.int64)[numbers]
        parts = (ArrayDataset.of(images, labels), ArrayDataset.of(tested, own))
        about = self._about(f"{len(names)} classes, {len(labels):,} + {len(own):,} images")
        return DataSet(name, *parts, names, "crop_flip", about=about)

    def domains(self, name: str, domains: Sequence[Path], test_share: float, seed: int) -> DataSet:
        """A share of each class of each domain becomes the test set."""
        folders = [self.folders.subfolders(domain) for domain in domains]
        own = [_names(each, domain) for each, domain in zip(folders, domains, strict=True)]
        names = _sorted({each for known in own for each in known})
        images, numbers = self._read([folder for each in folders for folder in each])
        label = np.array([names.index(each) for known in own for each in known])[numbers]
        domain_of = np.repeat(np.arange(len(domains)), [len(each) for each in own])[numbers]
        train, test = stratified_split(domain_of * len(names) + label, test_share, seed)
        parts = (ArrayDataset(images, label, train), ArrayDataset(images, label, test))
        told = f"{len(domains)} domains of {len(names)} classes, {len(label):,} images"
        return DataSet(
            name,
            *parts,
            tuple(names),
            "crop_flip",
            domain_names=tuple(domain.name for domain in domains),
            train_domains=domain_of[train],
            test_domains=domain_of[test],
            about=self._about(told),
        )

    def _read(self, classes: Sequence[Path]) -> tuple[Array, Array]:
        """The images of class folders, and labels that number the folders."""
        files: list[Path] = []
        labels: list[int] = []
        for label, folder in enumerate(classes):
            found = self._readable(self.folders.images(folder))
            if not found:
                raise DataError(f"{shown(folder)}: there is no image in it{self.folders.note}.")
            files += found
            labels += [label] * len(found)
        if not self.skip_unreadable and (wrong := headless(files)):
            others = f", nor are {len(wrong) - 1} others" if len(wrong) > 1 else ""
            raise DataError(
                f"{shown(wrong[0])} is no image{others}. Delete or replace such files, or leave them out: "
                "stream.skip_unreadable=true"
            )
        return file_images(files, self.size, f"files/{self.size}"), np.array(labels, dtype=np.int64)

    def _readable(self, files: list[Path]) -> list[Path]:
        bad = set(unreadable(files)) if self.skip_unreadable else set()
        for index in bad:
            self.folders.leave_out("unreadable", files[index])
        return [file for index, file in enumerate(files) if index not in bad]

    def _about(self, found: str) -> str:
        return f"folder: {found}{self.folders.note}"


def _names(classes: Sequence[Path], where: Path) -> tuple[str, ...]:
    return class_names([folder.name for folder in classes], where)


def _sorted(names: set[str]) -> list[str]:
    """By name; numbers, if all are numbers, by value."""
    numbers = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))
