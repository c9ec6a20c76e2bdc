"""Several processes, each with a slice of every batch in the backbone, and all with the same everything else.

The backbone is what costs. Each process runs its slice through it, the features are gathered, and from there
on every process does the same on the whole batch: losses, statistics, memories and predictions need no word
about processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cl.data.loading import Images
from cl.errors import PalimpsestError

LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""What stands in the errors of a collective in which another process takes part no more."""


class LostProcessError(PalimpsestError):
    """Another of the processes that share the work is gone, or did not answer in time."""


def is_lost_process(error: BaseException) -> bool:
    """Whether a collective failed for want of another process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return False
    told = isinstance(error, RuntimeError) and any(words in str(error) for words in LOST)
    return told or isinstance(error, dist.DistError)


class Ranks:
    """The processes that share the work: this one is `rank` of `world`. They share only inside `sharing`."""

    def __init__(self, rank: int = 0, world: int = 1, device: str | torch.device = "cpu") -> None:
        self.rank, self.world, self.device = rank, world, device
        self.active = False

    def __deepcopy__(self, memo: Any) -> Ranks:
        return Ranks()  # a copy of a model, a teacher for example, works alone

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """All processes do the same in here, and each takes its slice of what goes through the backbone."""
        self.active = self.world > 1
        try:
            yield
        finally:
            self.active = False

    def split(self, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(images)`, B × …, of which this process computes its slice."""
        if not self.active or len(images) < self.world:
            return compute(images)
        return self.gather(compute(self.share(images)), len(images))

    def share(self, images: Tensor) -> Tensor:
        """This process's slice of a batch; all slices have one size, so the last image may be in several."""
        size = self._size(len(images))
        which = (torch.arange(size) + self.rank * size).clamp(max=len(images) - 1)
        if isinstance(images, Images):
            return images.rows(which.numpy())
        return images[which.to(images.device)]

    def gather(self, own: Tensor, count: int) -> Tensor:
        """What all processes made of their slices, for the whole batch of `count`."""
        gathered: Tensor = GatherRows.apply(own, self.rank, self.world)[:count]
        return gathered

    def highest(self, number: int) -> int:
        """The highest of the numbers that the processes give, so that all of them do the same."""
        if self.world == 1:
            return number
        given = torch.tensor(number, device=self.device)
        dist.all_reduce(given, dist.ReduceOp.MAX)
        return int(given)

    def _size(self, count: int) -> int:
        return -(-count // self.world)


class GatherRows(torch.autograd.Function):
    """The rows of all processes one after the other.

    Each process has the same loss of all rows, and gradients are averaged over processes afterwards; so a
    process's own rows get their gradient times the number of processes.
    """

    @staticmethod
    def forward(context: Any, own: Tensor, rank: int, world: int) -> Tensor:
        context.rank, context.world, context.rows = rank, world, len(own)
        parts = [torch.empty_like(own) for _ in range(world)]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        start = context.rank * context.rows
        return gradient[start : start + context.rows] * context.world, None, None
