"""Dark experience replay: the memory also keeps logits, and the model is held to them."""

from __future__ import annotations

import torch
from torch import Tensor

from cl.data import Batch
from cl.data.memory import Rehearsal, Sample
from cl.errors import require
from cl.ops.distillation import logit_distance
from cl.strategy import Strategy
from cl.stream import Experience


class DER(Strategy):
    """Dark experience replay (Buzzega et al., 2020).

    L = CE(new batch) + alpha · mean (z(x) − z_stored)² over a batch from the memory. Cross-entropy and mean
    are over all classes seen. The authors' head has all rows from the start, and holds an old image to what
    it said of later classes, too; here the head grows, and for these z_stored is 0, as from a new row.

    alpha: of the squared distance. memory, memory_unit, memory_batch, filling: as in ER. repeats: offer an
    image to the memory in every epoch, as the authors do, so that it may be stored several times, with logits
    from several moments of the training; otherwise in the first epoch only. Logits are taken
    when an image is offered, in training mode, from its augmented view, and the image is stored without
    augmentation (the authors' choice, too); drawn images are augmented anew.
    """

    cost = "a batch of the memory a step"
    rehearsal = True
    grows = "memory"
    loss_classes = "seen"

    def __init__(
        self,
        alpha: float = 0.3,
        memory: int = 500,
        memory_unit: str = "images",
        memory_batch: int = 64,
        filling: str = "reservoir",
        repeats: bool = True,
    ) -> None:
        super().__init__()
        require(alpha >= 0, f"strategy.alpha={alpha}: it must not be negative.")
        require(memory_batch >= 1, f"strategy.memory_batch={memory_batch}: it must be at least 1.")
        self.alpha, self.memory_batch = alpha, memory_batch
        self.memory = Rehearsal(memory, memory_unit, filling, repeats)

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        self.memory.open(experience.train, self.generator("memory", experience.index))

    def loss(self, batch: Batch) -> Tensor:
        logits = self.run.model(batch.images)
        loss = self.cross_entropy(logits, batch.labels)
        self.log("cross_entropy", loss)
        loss = loss + self.rehearse(batch)
        self.memory.offer(batch, logits.detach())
        return loss + self.penalty()

    def rehearse(self, batch: Batch) -> Tensor | float:
        """The term of the memory."""
        old = self.memory.recall(self.memory_batch, batch)
        if not self.alpha or not len(old.labels):
            return 0.0
        distance = logit_distance(self.run.model(self.seen_anew(old)), old.logits)
        self.log("logit_distance", distance)
        return self.alpha * distance

    def seen_anew(self, old: Sample) -> Tensor:
        """Images from the memory, augmented, as the backbone takes them."""
        return self.prepare(old.images, self.memory.random)

    def after_experience(self, experience: Experience) -> None:
        self.memory.close()
        self.log("memory_bytes", torch.tensor(self.memory.stored_bytes))


class DERpp(DER):
    """DER++ (Buzzega et al., 2020): DER with the labels of the memory as well.

    L = L_DER + beta · CE(z(x'), y'), with x' from a second draw, independent of the first. beta: of that
    cross-entropy, which is over all classes seen. All other arguments as in DER.
    """

    cost = "two batches of the memory a step"

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.5,
        memory: int = 500,
        memory_unit: str = "images",
        memory_batch: int = 64,
        filling: str = "reservoir",
        repeats: bool = True,
    ) -> None:
        super().__init__(alpha, memory, memory_unit, memory_batch, filling, repeats)
        require(beta >= 0, f"strategy.beta={beta}: it must not be negative.")
        self.beta = beta

    def rehearse(self, batch: Batch) -> Tensor | float:
        distance = super().rehearse(batch)
        old = self.memory.recall(self.memory_batch, batch)
        if not self.beta or not len(old.labels):
            return distance
        loss = self.cross_entropy(self.run.model(self.seen_anew(old)), old.labels)
        self.log("memory_cross_entropy", loss)
        return distance + self.beta * loss
