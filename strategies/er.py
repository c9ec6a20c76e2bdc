"""Experience replay: every step also trains on images from a memory."""

from __future__ import annotations

import torch
from torch import Tensor

from cl.data import Batch
from cl.data.memory import Rehearsal
from cl.errors import require
from cl.strategy import Strategy
from cl.stream import Experience


class ER(Strategy):
    """Experience replay with a reservoir (Chaudhry et al., 2019; Rolnick et al., 2019).

    L = cross-entropy over all classes seen, mean over the new batch and a batch from the memory together.

    memory: how many images are stored, or bytes with memory_unit "bytes". memory_batch: images drawn per
    step, without replacement and none of the new batch. filling: "reservoir" or "class_balanced".
    repeats: offer an image to the memory in every epoch, as common codes do, so that it may be stored
    several times; otherwise once, and the memory is a random subset of the images seen. Drawn images
    are augmented anew.
    """

    cost = "a batch of the memory a step"
    rehearsal = True
    grows = "memory"
    loss_classes = "seen"

    def __init__(
        self,
        memory: int = 500,
        memory_unit: str = "images",
        memory_batch: int = 64,
        filling: str = "reservoir",
        repeats: bool = False,
    ) -> None:
        super().__init__()
        require(memory_batch >= 1, f"strategy.memory_batch={memory_batch}: it must be at least 1.")
        self.memory_batch = memory_batch
        self.memory = Rehearsal(memory, memory_unit, filling, repeats)

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        self.memory.open(experience.train, self.generator("memory", experience.index))

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(self.memory.joined(batch, self.memory_batch, self.prepare))
        self.memory.offer(batch)
        return loss

    def after_experience(self, experience: Experience) -> None:
        self.memory.close()
        self.log("memory_bytes", torch.tensor(self.memory.stored_bytes))
