"""Streams whose classes come back: Si-Blurry, repetition, and task-free. Every training image comes once."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cl.data.arrays import Array
from cl.data.datasets import DataSet
from cl.errors import DataError, require
from cl.stream import Stream, from_parts, shuffled_classes, split_classes
from streams.datasets import load


def si_blurry(
    dataset: str | DataSet = "digits",
    tasks: int = 5,
    disjoint: float = 50.0,
    blurry: float = 10.0,
    sizes: Literal["equal", "random"] = "equal",
    seed: int = 0,
) -> Stream:
    """Si-Blurry: stochastic blurry task boundaries (Moon et al., 2023).

    disjoint: N, per cent of the classes (rounded down) whose images are all in one task. Every other
    class belongs to one task too, but  blurry: M,  per cent of these tasks' images (rounded down) are
    taken out of each task, mixed, and given back in equal numbers to all tasks. sizes: "equal", disjoint and
    blurry classes are spread evenly over the tasks (official code); "random", at random, at least one
    class to a task (the paper's text). seed: which classes and images. Where numbers do not divide,
    the first tasks get one more, and nothing is left out; the official code drops the rest. A task is tested
    on all test images of the classes that occur in its training.
    """
    data = load(dataset)
    for name, share in (("disjoint", disjoint), ("blurry", blurry)):
        require(0 <= share <= 100, f"stream.{name}={share}: it must be in [0, 100], per cent.")
    require(sizes in ("equal", "random"), f"stream.sizes={sizes}: it must be equal or random.")
    require(
        1 <= tasks <= data.classes,
        f"stream.tasks={tasks}: {data.name} has {data.classes} classes, so 1 … {data.classes}.",
    )
    generator = np.random.RandomState(seed)
    order, targets = generator.permutation(data.classes), data.train.targets
    alone = int(data.classes * disjoint / 100 + 1e-9)
    groups = _groups(order, alone, tasks, sizes, generator)
    parts, pool = [], []
    for classes in groups:
        positions = generator.permutation(
            np.flatnonzero(np.isin(targets, np.setdiff1d(classes, order[:alone])))
        )
        taken = int(len(positions) * blurry / 100 + 1e-9)
        pool.append(positions[:taken])
        own = np.flatnonzero(np.isin(targets, np.intersect1d(classes, order[:alone])))
        parts.append(np.concatenate([own, positions[taken:]]))
    mixed = np.array_split(generator.permutation(np.concatenate(pool)), tasks)
    both = [np.sort(np.concatenate(pair)) for pair in zip(parts, mixed, strict=True)]
    return from_parts(data, both, [int(c) for c in order], "blurry")


def _groups(
    order: Array, alone: int, tasks: int, sizes: str, generator: np.random.RandomState
) -> list[Array]:
    """The classes of each task, disjoint and blurry ones together."""
    if sizes == "equal":
        # The blurry classes start with the last task: a task without a disjoint class gets one first.
        pairs = zip(
            np.array_split(order[:alone], tasks),
            np.array_split(order[alone:], tasks)[::-1],
            strict=True,
        )
        groups = [np.concatenate(pair) for pair in pairs]
    else:
        where = np.concatenate(
            [np.arange(tasks), generator.randint(tasks, size=len(order) - tasks)]
        )
        shuffled = generator.permutation(order)
        groups = [shuffled[where == task] for task in range(tasks)]
    require(
        all(len(group) for group in groups),
        f"stream.tasks={tasks}: with {alone} disjoint of {len(order)} classes a task has none.",
    )
    return groups


def repetition(
    dataset: str | DataSet = "digits",
    tasks: int = 5,
    repeat: float = 0.5,
    seed: int = 0,
    order_seed: int | None = None,
) -> Stream:
    """Class-incremental with repetition (after Hemati et al., 2023): classes come back at random.

    A class appears first as in a class-incremental stream of `tasks` tasks; in each later task it comes
    back with the chance `repeat`. Its training images are shared out evenly among its appearances, so that
    each image comes once; the paper's generator may show an image again. seed: which come when.
    """
    data = load(dataset)
    require(0 <= repeat <= 1, f"stream.repeat={repeat}: it must be in [0, 1].")
    order = shuffled_classes(data.classes, order_seed)
    first = split_classes(data, order, tasks)
    generator, targets = np.random.RandomState(seed), data.train.targets
    parts: list[list[Array]] = [[] for _ in range(tasks)]
    start = np.searchsorted(np.asarray(first.seen), np.arange(data.classes), side="right")
    for arrival, label in enumerate(order):
        begin = int(start[arrival])
        again = np.flatnonzero(generator.random_sample(tasks - begin - 1) < repeat) + begin + 1
        appearances = [begin, *(int(task) for task in again)]
        positions = generator.permutation(np.flatnonzero(targets == label))
        if len(positions) < len(appearances):
            raise DataError(
                f"stream.repeat={repeat}: {data.class_names[label]} of {data.name} has "
                f"{len(positions)} training images for {len(appearances)} appearances."
            )
        shares = np.array_split(positions, len(appearances))
        for task, share in zip(appearances, shares, strict=True):
            parts[task].append(share)
    return from_parts(data, [np.sort(np.concatenate(part)) for part in parts], order, "blurry")


def task_free(
    dataset: str | DataSet = "digits",
    chunks: int = 10,
    width: float = 1.0,
    seed: int = 0,
    order_seed: int | None = None,
) -> Stream:
    """No boundaries: the classes fade in and out, and the learner gets the images in equal chunks.

    The images of the c-th class arrive at times drawn from a normal distribution around c with standard
    deviation `width`, measured in classes (a Gaussian schedule, Shanahan et al., 2021; Wang et al.,
    2022). The sequence is cut into `chunks` of equal length, wherever the cuts fall: an experience is no
    task, only the next images. width=0: one class after the other.
    """
    data = load(dataset)
    require(width >= 0, f"stream.width={width}: it must not be negative.")
    require(
        1 <= chunks <= len(data.train),
        f"stream.chunks={chunks}: {data.name} has {len(data.train)} training images.",
    )
    order = shuffled_classes(data.classes, order_seed)
    generator = np.random.RandomState(seed)
    peak = np.argsort(order)[data.train.targets]
    time = peak + width * generator.standard_normal(len(peak))
    parts = np.array_split(np.argsort(time, kind="stable"), chunks)
    return from_parts(data, parts, order, "blurry")
