"""RanPAC: ridge regression on random features of a backbone that was adapted once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.errors import require
from cl.models.adapters import inject_adapters
from cl.models.first_session import begin_first_session, end_first_session
from cl.models.heads import RidgeHead
from cl.models.model import Model
from cl.models.slots import encode_slots
from cl.ops.ridge import ridge_errors
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo

STRENGTHS = [10.0**exponent for exponent in range(-8, 9)]
HELD_OUT = 0.2


class RanPAC(Strategy):
    """Random projections for pretrained models (McDonnell et al., 2023).

    Phase 1, in the first experience only: adapters are trained with a throw-away cosine head, then all is
    frozen. Phase 2: h = ReLU(φ(x) P), P random and fixed;  G = Σ h hᵀ and Q = Σ h yᵀ over all
    images ever seen;  W = (G + λ I)⁻¹ Q;  ŷ = argmax W ᵀh. The sums know no order, so in phase 2 a stream
    gives the classifier that all its data together would give. λ is chosen anew after each experience,
    from 10⁻⁸ … 10⁸: least squared error on a random fifth of its images, fitted on the others.

    projection: M; 0 does without. The authors' 10,000 costs 1.6 GB and minutes per task without a GPU, so
    the default is 2,000. bottleneck, scale, dropout: of the adapters; bottleneck 0 leaves out phase 1,
    and then any backbone will do. Stored: G (M²) and P, and for each class a column of Q and of W.
    """

    cost = "less: after the first task no steps, a ridge regression"
    grows = "columns of the ridge regression"

    def __init__(
        self,
        projection: int = 2000,
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        require(projection >= 0, f"strategy.projection={projection}: it must not be negative.")
        require(bottleneck >= 0, f"strategy.bottleneck={bottleneck}: it must not be negative.")
        self.projection, self.bottleneck = projection, bottleneck
        self.scale, self.dropout = scale, dropout

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.requires_grad_(False)
        if self.bottleneck:
            inject_adapters(model.backbone, self.bottleneck, self.scale, self.dropout)
        model.head = RidgeHead(model.features, self.projection, self.generator("projection"))

    def before_experience(self, experience: Experience) -> None:
        self.gradient_free = not self.bottleneck or experience.index > 0
        if not self.gradient_free:
            self.own_head = begin_first_session(self.run.model, experience.seen, self.generator)
        self.grow_head(experience)

    @torch.no_grad()
    def after_experience(self, experience: Experience) -> None:
        if not self.gradient_free:
            end_first_session(self.run.model, self.own_head)
            del self.own_head
            self.grow_head(experience)
        parts = [(self.features(b.images), b.labels) for b in self.batches(experience)]
        for features, labels in parts:
            self.run.model.head.update(features, labels)
        everything = torch.cat([f for f, _ in parts]), torch.cat([y for _, y in parts])
        strength = self.choose_strength(*everything, experience.index)
        self.log("ridge_strength", torch.tensor(strength))
        self.run.model.head.solve(strength)

    def choose_strength(self, features: Tensor, labels: Tensor, experience: int) -> float:
        """The λ with the least error on held-out images (on all of them if there are fewer than five)."""
        order = torch.randperm(len(labels), generator=self.generator("held out", experience))
        order = order.to(labels.device)
        count = int(HELD_OUT * len(labels))
        held, used = (order[:count], order[count:]) if count else (order, order)
        H = self.run.model.head.expand(features)
        Y = F.one_hot(labels, self.run.model.head.classes)
        errors = ridge_errors(H[used], Y[used], H[held], Y[held], STRENGTHS)
        return STRENGTHS[int(errors.argmin())]

    def features(self, images: Tensor) -> Tensor:
        """Of the backbone as the first task left it, B × features."""
        if self.bottleneck:
            return encode_slots(self.run.model, images, [0])[0]
        return self.run.model.encode(images)

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        return self.run.model.head(self.features(images))
