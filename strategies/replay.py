"""Rehearsal as a plugin: whatever the strategy does with a batch, images of earlier tasks are in it."""

from __future__ import annotations

import torch
from torch import Tensor

from cl.data import ArrayDataset, Batch
from cl.data.memory import Rehearsal
from cl.errors import require
from cl.objective import Classification
from cl.random import generator
from cl.strategy import LossOfBatch, Plugin
from cl.stream import Experience, StreamInfo


class Replay(Plugin):
    """Experience replay (Chaudhry et al., 2019; Rolnick et al., 2019) for any strategy.

    Every batch is joined with one from the memory, and the strategy's cross-entropy is over all classes seen.
    On naive fine-tuning that is `strategy=er`, bit for bit.

    memory: how many images are stored, or bytes with memory_unit "bytes". memory_batch: images drawn per
    step, without replacement and none of the new batch. filling: "reservoir" or "class_balanced".
    repeats: offer an image to the memory in every epoch, so that it may be stored several times.
    """

    cost = "a batch of the memory a step"

    def __init__(
        self,
        memory: int = 500,
        memory_unit: str = "images",
        memory_batch: int = 64,
        filling: str = "reservoir",
        repeats: bool = False,
    ) -> None:
        super().__init__()
        require(
            memory_batch >= 1, f"plugin.replay.memory_batch={memory_batch}: it must be at least 1."
        )
        self.memory_batch = memory_batch
        self.memory = Rehearsal(memory, memory_unit, filling, repeats)

    def setup(self, model: object, stream: StreamInfo) -> None:
        assert self.run.strategy is not None
        objective = self.run.strategy.objective
        require(
            isinstance(objective, Classification),
            "plugin=[replay]: the strategy's objective has no classes to be over.",
        )
        objective.classes = "seen"

    def training_data(self, data: ArrayDataset, experience: Experience) -> ArrayDataset:
        # Seeded as ER's memory, so that the two are one method.
        self.memory.open(data, generator(self.run.seed, "ER/memory", experience.index))
        return data

    def around(self, loss: LossOfBatch, batch: Batch) -> Tensor:
        value = loss(self.memory.joined(batch, self.memory_batch, self.prepare))
        self.memory.offer(batch)
        return value

    def after_experience(self, experience: Experience) -> None:
        self.memory.close()
        self.log("memory_bytes", torch.tensor(self.memory.stored_bytes))
