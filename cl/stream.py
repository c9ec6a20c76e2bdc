"""A stream: a named sequence of experiences, each with training data, and a test set per experience."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cl.data import splits
from cl.data.arrays import Array, ArrayDataset
from cl.data.contents import contents
from cl.data.datasets import DataCard, DataSet, stratified_split
from cl.data.unlabelled import Unlabelled
from cl.errors import DataError, require
from cl.experience import Experience, StreamInfo
from cl.names import class_names, shown

__all__ = [
    "SCENARIOS",
    "DataSet",
    "Experience",
    "Stream",
    "StreamInfo",
    "class_incremental",
    "from_parts",
    "shuffled_classes",
    "split_classes",
    "stratified_split",
    "task_sizes",
]

SCENARIOS = ("class-incremental", "task-incremental", "domain-incremental", "blurry")
"""What a stream may be. "blurry": the classes of earlier experiences come back, without a task label."""


@dataclass(frozen=True)
class Stream:
    """A sequence of training sets and, for each, the test set of the same classes or domain.

    scenario: one of `SCENARIOS`. class_names: in order of arrival, as the labels. augmentation: a key of
    `cl.data.AUGMENTATIONS` that suits the images. card: of the data set, if it is a published one. A training
    set whose labels are all −1 is shown without labels; the classes are those seen before.
    seen: how many classes have appeared after each experience; counted unless given. It must be given where
    `train` and `test` are computed when they are indexed (`cl.data.computed.Lazy`), as in a stream of
    thousands of experiences. about: what was found in one's own files, on one line.
    """

    name: str
    scenario: str
    train: Sequence[ArrayDataset]
    test: Sequence[ArrayDataset]
    class_names: Sequence[str]
    augmentation: str = "none"
    card: DataCard | None = None
    seen: Sequence[int] = ()
    about: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shown(self.name))
        if isinstance(
            self.class_names, list | tuple
        ):  # not names that are made when they are asked for
            object.__setattr__(self, "class_names", class_names(self.class_names, self.name))
        require(self.scenario in SCENARIOS, f"{self.name}: scenario {self.scenario} is not known.")
        require(len(self.train) == len(self.test), f"{self.name}: as many test as training sets.")
        if not self.seen:
            seen: list[int] = []
            for index in range(len(self)):
                seen.append(self._arrived(index, seen[-1] if seen else 0))
            object.__setattr__(self, "seen", tuple(seen))

    def __len__(self) -> int:
        return len(self.train)

    @classmethod
    def from_arrays(
        cls,
        images: Array,
        labels: Array,
        tasks: int = 5,
        test_images: Array | None = None,
        test_labels: Array | None = None,
        class_names: Sequence[str] = (),
        order_seed: int | None = None,
        name: str = "arrays",
    ) -> Stream:
        """A class-incremental stream of your own images (uint8 N × H × W × C) and labels (0, 1, …).

        Without test images, a fifth of each class becomes the test set, always the same one.
        order_seed: shuffles the classes. Other scenarios take a `DataSet`: see `streams`.
        """
        data = DataSet.of(images, labels, test_images, test_labels, tuple(class_names), name)
        return split_classes(data, shuffled_classes(data.classes, order_seed), tasks=tasks)

    @property
    def info(self) -> StreamInfo:
        """The part of the stream that a strategy may know."""
        return StreamInfo(self.name, self.scenario, len(self))

    def experience(self, index: int) -> Experience:
        """The experience at `index`."""
        train = self.train[index]
        before, seen = self.seen[index - 1] if index else 0, self.seen[index]
        classes = tuple(int(label) for label in np.unique(train.targets))
        if classes == (-1,):
            train, classes = Unlabelled.hide(train), ()
        new = tuple(label for label in classes if label >= before)
        task = index if self.scenario == "task-incremental" else None
        names = tuple(self.class_names[label] for label in range(seen))
        return Experience(index, train, new, classes, names, task)

    def split(self) -> dict[str, Array]:
        """Which images are in which experience: rows, labels and lengths of all parts, in order."""
        return splits.arrays(self._parts)

    def save_split(self, file: Path) -> None:
        """Write `split`, `fingerprint` and `contents` as a `.npz` file; DataError if others are there."""
        splits.save(self._parts, file, self.contents)

    def fingerprint(self) -> str:
        """A hash of the split: the same for the same images in the same experiences."""
        return splits.fingerprint(self._parts)

    @cached_property
    def contents(self) -> str:
        """A hash of the images and of the class names.

        All pixels, where they are stored and take up to 512 MB; else a sample, always the same. Of images in
        files, the bytes of some of the files.
        """
        return contents(self._parts.values(), self.class_names)

    @property
    def _parts(self) -> splits.Parts:
        return {"train": self.train, "test": self.test}

    def _arrived(self, index: int, before: int) -> int:
        """How many classes have appeared after this experience; a DataError if its data do not fit."""
        classes = np.unique(self.train[index].targets)
        if not len(classes):
            raise DataError(f"{self.name}, task {index}: there are no training images.")
        if classes[0] < 0:
            if len(classes) > 1:
                raise DataError(f"{self.name}, task {index}: some images have no label (−1).")
            return before
        without = sorted(set(classes.tolist()) - set(np.unique(self.test[index].targets).tolist()))
        if without:
            names = ", ".join(self.class_names[label] for label in without)
            raise DataError(f"{self.name}, task {index}: no test images of {names}.")
        new = classes[classes >= before]
        if not np.array_equal(new, np.arange(before, before + len(new))):
            raise DataError(f"{self.name}, task {index}: labels must follow the order of arrival.")
        return before + len(new)


def shuffled_classes(classes: int, seed: int | None) -> list[int]:
    """The order in which the classes arrive: as numbered if `seed` is None, else shuffled.

    Seed 1993 gives the order that most class-incremental papers use
    (numpy's legacy generator, as in iCaRL's successors).
    """
    if seed is None:
        return list(range(classes))
    return [int(c) for c in np.random.RandomState(seed).permutation(classes)]


def task_sizes(
    name: str, classes: int, tasks: int, base: int | None = None, sizes: Sequence[int] | None = None
) -> list[int]:
    """How many classes each task has.

    base: the classes of the first task; the rest are shared by the other tasks ("B50-Inc10" of 100
    classes is base=50, tasks=6). sizes: the numbers themselves. Where the classes do not divide
    evenly, the first tasks get one class more.
    """
    if sizes is not None:
        require(
            min(sizes, default=0) >= 1 and sum(sizes) == classes,
            f"stream.sizes={list(sizes)}: each at least 1, and {classes} together ({name}).",
        )
        return list(sizes)
    require(tasks >= 1, f"stream.tasks={tasks}: it must be at least 1.")
    require(
        tasks <= classes,
        f"stream.tasks={tasks}: {name} has {classes} classes, so at most {classes} tasks.",
    )
    if base is None:
        return [len(part) for part in np.array_split(np.arange(classes), tasks)]
    require(
        tasks >= 2 and 1 <= base <= classes - tasks + 1,
        f"stream.base={base}: with {tasks} tasks it must leave at least one of {classes} classes to "
        f"each of the other tasks: 1 … {classes - tasks + 1}.",
    )
    return [base, *task_sizes(name, classes - base, tasks - 1)]


def class_incremental(
    name: str,
    train: ArrayDataset,
    test: ArrayDataset,
    class_names: Sequence[str],
    tasks: int,
    order: Sequence[int],
    augmentation: str = "none",
) -> Stream:
    """Split both sets into `tasks` experiences of disjoint classes that arrive in `order`.

    If the classes do not divide evenly, the first experiences get one class more.
    """
    data = DataSet(name, train, test, tuple(class_names), augmentation)
    return split_classes(data, order, tasks=tasks)


def split_classes(
    data: DataSet,
    order: Sequence[int],
    tasks: int = 1,
    base: int | None = None,
    sizes: Sequence[int] | None = None,
    scenario: str = "class-incremental",
) -> Stream:
    """Split a data set into experiences of disjoint classes that arrive in `order`.

    tasks, base, sizes: as in `task_sizes`.
    """
    check_order(order, data.classes)
    groups = np.split(
        np.asarray(order), np.cumsum(task_sizes(data.name, data.classes, tasks, base, sizes))[:-1]
    )
    targets = data.train.targets
    parts = [np.flatnonzero(np.isin(targets, group)) for group in groups]
    return from_parts(data, parts, order, scenario)


def check_order(order: Sequence[int], classes: int) -> None:
    """Raise ConfigurationError unless `order` names each of the classes once."""
    require(
        sorted(order) == list(range(classes)),
        f"stream.class_order: give each of the {classes} classes 0 … {classes - 1} once.",
    )


def from_parts(
    data: DataSet,
    train: Sequence[Array],
    order: Sequence[int],
    scenario: str,
    test: Sequence[Array] | None = None,
) -> Stream:
    """The stream whose experiences are the given positions in `data.train`, in this order.

    test: positions in `data.test`; without them an experience is tested on all test images of its
    classes. Classes that arrive together are numbered as in `order`. Classes that never arrive are left out.
    """
    targets = data.train.targets
    arrival = _order_of_arrival([np.unique(targets[part]) for part in train], order)
    relabelled = [_relabelled(part, arrival, data.classes) for part in (data.train, data.test)]
    tested = relabelled[1].targets
    if test is None:
        test = [
            np.flatnonzero(np.isin(tested, np.unique(relabelled[0].targets[part])))
            for part in train
        ]
    return Stream(
        data.name,
        scenario,
        tuple(relabelled[0].subset(part) for part in train),
        tuple(relabelled[1].subset(part) for part in test),
        tuple(data.class_names[label] for label in arrival),
        data.augmentation,
        data.card,
        about=data.about,
    )


def _order_of_arrival(experiences: Sequence[Array], order: Sequence[int]) -> list[int]:
    rank = {int(label): position for position, label in enumerate(order)}
    arrived: dict[int, None] = {}
    for classes in experiences:
        arrived.update(dict.fromkeys(sorted(map(int, classes), key=rank.__getitem__)))
    return list(arrived)


def _relabelled(data: ArrayDataset, arrival: list[int], classes: int) -> ArrayDataset:
    number = np.full(classes, -1, dtype=np.int64)
    number[arrival] = np.arange(len(arrival))
    labels = np.full(len(data.labels), -1, dtype=np.int64)
    labels[data.rows] = number[data.targets]
    return replace(data, labels=labels)
