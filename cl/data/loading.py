"""Batches of a data set, on the device and ready for the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from cl.data.arrays import Array, ArrayDataset
from cl.data.transforms import Transform, augment


class Batch(NamedTuple):
    """One step's data.

    images: float32 B × 3 × S × S and labels: int64 B, on the device. positions: int64 B, where in the
    data set they are from.
    """

    images: Tensor
    labels: Tensor
    positions: Array


def index_batches(count: int, batch_size: int, generator: Generator | None) -> Iterator[Array]:
    """Positions 0 … count − 1 in batches; shuffled if there is a generator."""
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    for chunk in torch.split(order, batch_size):
        yield chunk.numpy()


def batches(
    data: ArrayDataset,
    transform: Transform,
    batch_size: int,
    device: torch.device,
    *,
    shuffle: Generator | None = None,
    augmentation: str = "none",
) -> Iterator[Batch]:
    """One pass over `data`. `shuffle` gives the order and the augmentation; without it, as stored."""
    for positions in index_batches(len(data), batch_size, shuffle):
        images, labels = data.take(positions)
        pixels = torch.from_numpy(images).to(device, non_blocking=True)
        if shuffle is not None:
            pixels = augment(pixels, augmentation, shuffle)
        targets = torch.from_numpy(labels.astype(np.int64)).to(device, non_blocking=True)
        yield Batch(transform(pixels), targets, positions)
