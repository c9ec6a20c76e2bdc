"""A stream: a named sequence of experiences, each with training data, and a test set per experience."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cl.data.arrays import Array, ArrayDataset
from cl.errors import DataError, require


@dataclass(frozen=True)
class Experience:
    """What a learner sees of one task; nothing of the tasks before and after it.

    index: 0 for the first. train: the training data; its labels number the classes in their order of
    arrival. new_classes: labels that appear for the first time. classes: all labels of this
    experience. names: the names of the classes seen. task: the task label, only in task-incremental streams.
    """

    index: int
    train: ArrayDataset
    new_classes: tuple[int, ...]
    classes: tuple[int, ...]
    names: tuple[str, ...]
    task: int | None = None

    @property
    def seen(self) -> int:
        """How many classes have appeared so far."""
        return len(self.names)


@dataclass(frozen=True)
class StreamInfo:
    """What may be known of a stream beforehand: no images, and no class that is still to come."""

    name: str
    scenario: str
    experiences: int


@dataclass(frozen=True)
class Stream:
    """A sequence of training sets and, for each, the test set of the same classes or domain.

    scenario: "class-incremental", "task-incremental" or "domain-incremental". class_names: in order of
    arrival, as the labels. augmentation: a key of `cl.data.AUGMENTATIONS` that suits the images.
    """

    name: str
    scenario: str
    train: tuple[ArrayDataset, ...]
    test: tuple[ArrayDataset, ...]
    class_names: tuple[str, ...]
    augmentation: str = "none"

    def __post_init__(self) -> None:
        require(len(self.train) == len(self.test), f"{self.name}: as many test as training sets.")
        for index, (train, test) in enumerate(zip(self.train, self.test, strict=True)):
            without = sorted(set(train.targets.tolist()) - set(test.targets.tolist()))
            if without:
                names = ", ".join(self.class_names[label] for label in without)
                raise DataError(f"{self.name}, task {index}: no test images of {names}.")

    def __len__(self) -> int:
        return len(self.train)

    @property
    def info(self) -> StreamInfo:
        """The part of the stream that a strategy may know."""
        return StreamInfo(self.name, self.scenario, len(self))

    def experience(self, index: int) -> Experience:
        """The experience at `index`."""
        past = {int(c) for data in self.train[:index] for c in np.unique(data.targets)}
        classes = tuple(int(label) for label in np.unique(self.train[index].targets))
        new = tuple(label for label in classes if label not in past)
        task = index if self.scenario == "task-incremental" else None
        names = self.class_names[: len(past) + len(new)]
        return Experience(index, self.train[index], new, classes, names, task)

    def fingerprint(self) -> str:
        """A hash of the split: the same for the same images in the same experiences."""
        digest = hashlib.sha256()
        for data in (*self.train, *self.test):
            digest.update(np.ascontiguousarray(data.rows).tobytes())
            digest.update(np.ascontiguousarray(data.targets).tobytes())
        return digest.hexdigest()[:16]


def shuffled_classes(classes: int, seed: int | None) -> list[int]:
    """The order in which the classes arrive: as numbered if `seed` is None, else shuffled.

    Seed 1993 gives the order that most class-incremental papers use
    (numpy's legacy generator, as in iCaRL's successors).
    """
    if seed is None:
        return list(range(classes))
    return [int(c) for c in np.random.RandomState(seed).permutation(classes)]


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
    classes = len(class_names)
    require(tasks >= 1, f"stream.tasks={tasks}: it must be at least 1.")
    require(
        tasks <= classes,
        f"stream.tasks={tasks}: {name} has {classes} classes, so at most {classes} tasks.",
    )
    require(
        sorted(order) == list(range(classes)),
        f"stream.class_order: give each of the {classes} classes 0 … {classes - 1} once.",
    )
    arrival = np.empty(classes, dtype=np.int64)
    arrival[np.asarray(order)] = np.arange(classes)
    groups = np.array_split(np.arange(classes), tasks)
    parts = [
        _split(ArrayDataset(data.images, arrival[data.labels], data.rows), groups)
        for data in (train, test)
    ]
    names = tuple(class_names[index] for index in order)
    return Stream(name, "class-incremental", parts[0], parts[1], names, augmentation)


def _split(data: ArrayDataset, groups: list[Array]) -> tuple[ArrayDataset, ...]:
    targets = data.targets
    return tuple(data.subset(np.flatnonzero(np.isin(targets, group))) for group in groups)


def stratified_split(labels: Array, test_share: float, seed: int) -> tuple[Array, Array]:
    """Rows for training and for test, `test_share` of each class in the test set; always the same."""
    generator = np.random.RandomState(seed)
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        test[rows[: max(1, round(test_share * len(rows)))]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)
