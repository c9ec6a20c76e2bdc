"""Streams of disjoint classes, on any data set: class- and task-incremental, few-shot, long-tailed, noisy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from cl.data.arrays import Array, ArrayDataset, class_counts
from cl.data.datasets import DataSet
from cl.errors import DataError, require
from cl.stream import Stream, check_order, from_parts, shuffled_classes, split_classes, task_sizes
from streams.datasets import load


def class_incremental(
    dataset: str | DataSet = "digits",
    tasks: int = 5,
    base: int | None = None,
    sizes: Sequence[int] | None = None,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """New classes in every task, and at test no word of the task.

    base: the classes of the first task, the others share the rest: "B50-Inc10" of CIFAR-100 is base=50
    tasks=6. sizes: the classes of each task. order_seed: shuffles the classes (1993 is the order of
    most papers), null keeps the data set's own. class_order: the order itself.
    """
    data = load(dataset)
    return split_classes(data, _order(data, order_seed, class_order), tasks, base, sizes)


def task_incremental(
    dataset: str | DataSet = "digits",
    tasks: int = 5,
    base: int | None = None,
    sizes: Sequence[int] | None = None,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """As `class_incremental`, but the task is known at test: an answer is one of the task's classes."""
    data = load(dataset)
    order = _order(data, order_seed, class_order)
    return split_classes(data, order, tasks, base, sizes, "task-incremental")


def few_shot(
    dataset: str | DataSet = "digits",
    base: int = 4,
    ways: int = 2,
    shots: int = 5,
    seed: int = 0,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """Few-shot class-incremental (Tao et al., 2020): a base task, then `ways` new classes at a time.

    base: classes of the first task, with all their training images. shots: training images of each later
    class, drawn with `seed`. The paper's CIFAR-100: base=60 ways=5 shots=5, nine tasks.
    """
    data = load(dataset)
    order = _order(data, order_seed, class_order)
    rest = data.classes - base
    require(
        ways >= 1 and base >= 1 and rest >= 0 and rest % ways == 0,
        f"stream.base={base} stream.ways={ways}: {data.name} has {data.classes} classes; "
        "those after the base must divide by ways.",
    )
    require(shots >= 1, f"stream.shots={shots}: it must be at least 1.")
    generator, targets = np.random.RandomState(seed), data.train.targets
    parts = [np.flatnonzero(np.isin(targets, order[:base]))]
    for first in range(base, data.classes, ways):
        chosen = []
        for label in order[first : first + ways]:
            positions = np.flatnonzero(targets == label)
            if shots > len(positions):
                raise DataError(
                    f"stream.shots={shots}: {data.class_names[label]} of {data.name} has only "
                    f"{len(positions)} training images."
                )
            chosen.append(generator.permutation(positions)[:shots])
        parts.append(np.sort(np.concatenate(chosen)))
    return from_parts(data, parts, order, "class-incremental")


def long_tailed(
    dataset: str | DataSet = "digits",
    tasks: int = 5,
    imbalance: float = 100.0,
    arrival: Literal["ordered", "shuffled"] = "ordered",
    seed: int = 0,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """Long-tailed class-incremental (Liu et al., 2022; the tail of Cui et al., 2019).

    The class of rank k of C keeps  ⌊n · imbalance^(−k / (C − 1))⌋  training images, at least one, n being
    those of the smallest class; the test set stays balanced. imbalance: how many times more images the first
    class has than the last. arrival: "ordered" from the head to the tail, or "shuffled", where `seed`
    ranks the classes. seed: also draws the images.
    """
    data = load(dataset)
    require(imbalance >= 1, f"stream.imbalance={imbalance}: it must be at least 1.")
    require(
        arrival in ("ordered", "shuffled"),
        f"stream.arrival={arrival}: it must be ordered or shuffled.",
    )
    order = _order(data, order_seed, class_order)
    generator, targets = np.random.RandomState(seed), data.train.targets
    ranked = (
        order if arrival == "ordered" else [order[k] for k in generator.permutation(len(order))]
    )
    counts = tail_counts(int(class_counts(targets, data.classes).min()), data.classes, imbalance)
    kept = [
        generator.permutation(np.flatnonzero(targets == label))[:count]
        for label, count in zip(ranked, counts, strict=True)
    ]
    tail = replace(data, train=data.train.subset(np.sort(np.concatenate(kept))))
    return split_classes(tail, order, tasks)


def tail_counts(largest: int, classes: int, imbalance: float) -> list[int]:
    """The images of each class, from the head of an exponential tail to its end."""
    # The tiny summand keeps exact powers such as 500 / 100 from being rounded down.
    steps = np.arange(classes) / max(1, classes - 1)
    return [max(1, int(count)) for count in largest * imbalance**-steps + 1e-9]


def label_noise(
    dataset: str | DataSet = "digits",
    tasks: int = 2,
    rate: float = 0.2,
    kind: Literal["symmetric", "asymmetric"] = "symmetric",
    seed: int = 0,
    base: int | None = None,
    sizes: Sequence[int] | None = None,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """Class-incremental with wrong training labels; the test labels are right.

    Of each class `rate` of the training images (rounded) get another label of the same task: "symmetric": any
    other, with equal chances; "asymmetric": the next one, the last becomes the first. A task must
    have two classes at least, for a class that has not arrived cannot be a label.
    """
    data = load(dataset)
    require(0 <= rate < 1, f"stream.rate={rate}: it must be in [0, 1).")
    require(
        kind in ("symmetric", "asymmetric"),
        f"stream.kind={kind}: it must be symmetric or asymmetric.",
    )
    order = _order(data, order_seed, class_order)
    groups = np.split(
        np.asarray(order), np.cumsum(task_sizes(data.name, data.classes, tasks, base, sizes))[:-1]
    )
    require(
        rate == 0 or min(map(len, groups)) >= 2,
        f"stream.tasks={tasks}: label noise needs at least two classes in every task.",
    )
    clean = split_classes(data, order, tasks, base, sizes)
    generator = np.random.RandomState(seed)
    labels = clean.train[0].labels.copy()  # of all images; the experiences share it
    for part in clean.train:
        _add_noise(labels, part, rate, kind, generator)
    noisy = tuple(replace(part, labels=labels) for part in clean.train)
    return replace(clean, train=noisy, seen=())


def _add_noise(
    labels: Array, data: ArrayDataset, rate: float, kind: str, generator: np.random.RandomState
) -> None:
    """Change the labels of some rows of `data`."""
    classes = np.unique(data.targets)
    for position, label in enumerate(classes):
        rows = data.rows[data.targets == label]
        wrong = np.sort(generator.permutation(rows)[: round(rate * len(rows))])
        if kind == "symmetric":
            others = np.delete(classes, position)
            labels[wrong] = others[generator.randint(len(others), size=len(wrong))]
        else:
            labels[wrong] = classes[(position + 1) % len(classes)]


def _order(data: DataSet, seed: int | None, given: Sequence[int] | None) -> list[int]:
    if given is not None:
        check_order(given, data.classes)
        return list(given)
    return shuffled_classes(data.classes, seed)
