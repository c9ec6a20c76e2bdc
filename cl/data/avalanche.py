"""Our images as Avalanche's data sets (Carta et al., 2023); it is imported when a function is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cl.data.arrays import ArrayDataset


class Images(Dataset[tuple[Tensor, int]]):
    """An `ArrayDataset` as PyTorch's data sets are: C × H × W in [0, 1], read when asked for."""

    def __init__(self, data: ArrayDataset) -> None:
        self.data, self.targets = data, data.targets.tolist()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, _ = self.data.take(np.array([index]))
        return torch.from_numpy(images[0]).permute(2, 0, 1).float() / 255, self.targets[index]


class Copies(Dataset[tuple[Tensor, int]]):
    """Copies of images as they are, uint8 C × H × W: they stay when their experience is over."""

    def __init__(self, data: ArrayDataset) -> None:
        images, labels = data.take(np.arange(len(data)))
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).clone()
        self.targets = labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.targets[index]


def labelled(
    images: Dataset[tuple[Tensor, int]],
    targets: Sequence[int],
    task: int,
    training: Callable[[Tensor], Tensor] | None = None,
) -> Any:
    """Avalanche's data set of images with a label and a task label each.

    training: an augmentation, applied only while Avalanche trains on the data set.
    """
    from avalanche.benchmarks.utils import (
        DataAttribute,
        TaskAwareSupervisedClassificationDataset,
        TransformGroups,
    )
    from avalanche.benchmarks.utils.flat_data import ConstantSequence

    groups = None
    if training is not None:
        groups = TransformGroups({"train": (training, None), "eval": (None, None)})
    attributes = [
        DataAttribute(list(targets), "targets"),
        DataAttribute(
            ConstantSequence(task, len(targets)), "targets_task_labels", use_in_getitem=True
        ),
    ]
    return TaskAwareSupervisedClassificationDataset(
        [images], data_attributes=attributes, transform_groups=groups
    )
