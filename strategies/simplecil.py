"""SimpleCIL: class means of a frozen backbone's features."""

from __future__ import annotations

import torch

from cl.models.heads import PrototypeHead
from cl.models.model import Model
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo


class SimpleCIL(Strategy):
    """Nearest class mean with cosine similarity on a frozen backbone (Zhou et al., 2023).

    P_c = mean of φ(x) over the training images of class c, un-augmented;  ŷ = argmax_c cos(φ(x), P_c).
    Features are not normalised before averaging. Nothing is trained; a class costs `features` numbers.
    """

    cost = "less: one pass, no steps"
    gradient_free = True

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.requires_grad_(False)
        model.head = PrototypeHead(model.features)

    @torch.inference_mode()
    def after_experience(self, experience: Experience) -> None:
        for batch in self.batches(experience):
            self.run.model.head.update(self.run.model.encode(batch.images), batch.labels)
