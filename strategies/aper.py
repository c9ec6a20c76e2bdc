"""APER: adapt once, then nearest class mean on the old and the adapted features side by side."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from cl.errors import require_one_of
from cl.models.adapters import BARE, inject_adapters
from cl.models.first_session import begin_first_session, end_first_session
from cl.models.heads import PrototypeHead
from cl.models.model import Model
from cl.models.slots import encode_slots
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo


class APER(Strategy):
    """Adapt and merge (Zhou et al., 2023; first called ADAM).

    In the first experience only, the network is adapted with a throw-away cosine head. From then on both
    networks are frozen, Φ(x) = [φ_pretrained(x); φ_adapted(x)], and  ŷ = argmax_c cos(Φ(x), P_c)  with
    P_c the mean of Φ over the un-augmented training images of class c. It is one cosine of the whole
    vector, not the sum of two, so the branch with the longer features counts for more.

    adaptation: "adapter" trains bottleneck adapters in a ViT; "finetune" trains a copy of the whole
    backbone, which may be any. bottleneck, scale, dropout: of the adapters. Stored: the adapters or the
    copy, once, and 2 × features numbers per class.
    """

    cost = "less: after the first task one pass, no steps; at test two"
    grows = "prototypes of double width"

    def __init__(
        self,
        adaptation: str = "adapter",
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        require_one_of("strategy.adaptation", adaptation, ("adapter", "finetune"))
        self.adaptation, self.bottleneck = adaptation, bottleneck
        self.scale, self.dropout = scale, dropout

    def setup(self, model: Model, stream: StreamInfo) -> None:
        if self.adaptation == "adapter":
            inject_adapters(model.backbone, self.bottleneck, self.scale, self.dropout)
        else:
            self.pretrained = deepcopy(model.backbone).requires_grad_(False).eval()
        model.head = PrototypeHead(2 * model.features)

    def before_experience(self, experience: Experience) -> None:
        self.gradient_free = experience.index > 0
        if not self.gradient_free:
            self.own_head = begin_first_session(self.model, experience.seen, self.generator)
        self.grow_head(experience)

    @torch.no_grad()
    def after_experience(self, experience: Experience) -> None:
        if experience.index == 0:
            end_first_session(self.model, self.own_head)
            del self.own_head
            self.grow_head(experience)
        for batch in self.batches(experience):
            self.model.head.update(self.features(batch.images), batch.labels)

    def features(self, images: Tensor) -> Tensor:
        """The pretrained and the adapted features, B × 2 · features."""
        if self.adaptation == "finetune":
            return torch.cat([self.pretrained(images), self.model.encode(images)], dim=1)
        return torch.cat(list(encode_slots(self.model, images, [BARE, 0])), dim=1)

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        return self.model.head(self.features(images))
