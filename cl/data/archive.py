"""Every image that was ever seen: the store of the reference methods that may forget nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cl.data.arrays import ArrayDataset
from cl.data.memory import require_same_type


class Archive(nn.Module):
    """Copies of images and labels, as buffers: they are counted and saved like any other state.

    images: uint8 N × H × W × C, or token ids int32 N × L, as first stored. labels: int64 N. They stay on
    the CPU, where batches are made.
    """

    writes_in_place = False  # what is stored is never changed: new tensors take its place
    images: Tensor
    labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(0, 0, 0, 0, dtype=torch.uint8))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, data: ArrayDataset) -> None:
        """Copy all images of `data`; they have the size of those that are stored."""
        images, labels = data.take(np.arange(len(data)))
        new, targets = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
        if len(self):
            require_same_type(self.images, new.dtype, "archive")
        self.images = torch.cat([self.images, new]) if len(self) else new.clone()
        self.labels = torch.cat([self.labels, targets])

    def dataset(self) -> ArrayDataset:
        """What is stored, as a data set; no image is copied."""
        return ArrayDataset.of(self.images.numpy(), self.labels.numpy())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return self  # not moved to the accelerator with the rest of the state
