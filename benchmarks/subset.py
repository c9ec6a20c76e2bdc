"""The fixed part of CIFAR-100 that the table of results is measured on, so that a run takes minutes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cl.data import ArrayDataset
from cl.data.datasets import DataSet
from cl.stream import Stream, shuffled_classes, split_classes
from streams.datasets import load


def cifar100(training: int, test: int, tasks: int = 10, order_seed: int = 1993) -> Stream:
    """The first `training` and `test` images of each class, in the data set's own order, in `tasks` tasks."""
    return split_subset(load("cifar100"), training, test, tasks, order_seed)


def split_subset(
    data: DataSet, training: int, test: int, tasks: int, order_seed: int | None
) -> Stream:
    """The first images of each class of any data set, split into class-incremental tasks."""
    part = replace(data, train=first(data.train, training), test=first(data.test, test))
    return split_classes(part, shuffled_classes(data.classes, order_seed), tasks)


def first(data: ArrayDataset, count: int) -> ArrayDataset:
    """The first `count` images of each class."""
    targets = data.targets
    positions = [np.flatnonzero(targets == label)[:count] for label in np.unique(targets)]
    return data.subset(np.sort(np.concatenate(positions)))
