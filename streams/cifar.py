"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 images of 32 × 32 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cl.errors import require, suggest
from cl.stream import Stream
from streams.classes import class_incremental
from streams.datasets import load

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
    data = replace(load(dataset), name="split_cifar")
    return class_incremental(data, tasks, order_seed=order_seed, class_order=class_order)
