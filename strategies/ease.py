"""EASE: a subspace for every task, and prototypes in all of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.errors import require, require_one_of
from cl.models.adapters import BARE, adapters_of, inject_adapters, reset_adapters
from cl.models.heads import CosineHead, LinearHead
from cl.models.model import Model
from cl.models.slots import encode_slots
from cl.ops.prototypes import class_means, cosines, own_subspace_weights, synthesise
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo

PROXIES: dict[str, type[CosineHead] | type[LinearHead]] = {
    "cosine": CosineHead,
    "linear": LinearHead,
}


class EASE(Strategy):
    """Expandable subspace ensemble (Zhou et al., 2024).

    Each task trains adapters of its own in the frozen ViT, with a proxy head that is thrown away; φ_k are
    the features through those of task k. W[c, k] is the mean of φ_k over the un-augmented images of class c.
    An old class c of task i has no images for a later k: W[c, k] is then put together from the classes of
    tasks ≥ k by their similarity to c in subspace i (`cl.ops.prototypes.synthesise`). After t + 1 tasks the
    score of c is  cos(φ_i, W[c, i]) + (others / t) Σ_{k≠i} cos(φ_k, W[c, k]) + bare · cos(φ, W[c]).

    bottleneck, scale, dropout: of the adapters. proxy: "cosine", in the official code, to which the learning
    rates belong: a cosine classifier with a trained scale; or "linear", a linear layer. others: α.
    average: divide by t as the official code does; false weighs each other subspace with α, as the
    paper writes it. bare: β, the weight of the backbone without adapters. Stored: an adapter per task, a
    prototype per class and task; at test an image goes through all adapters.
    """

    cost = "passes for the class means; at test one through each adapter"
    grows = "adapters and prototypes"
    prototypes: Tensor
    bare_prototypes: Tensor
    tasks: Tensor

    def __init__(
        self,
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
        proxy: str = "cosine",
        others: float = 0.1,
        average: bool = True,
        bare: float = 0.0,
    ) -> None:
        super().__init__()
        require_one_of("strategy.proxy", proxy, PROXIES)
        for name, value in (("others", others), ("bare", bare)):
            require(value >= 0, f"strategy.{name}={value}: it must not be negative.")
        self.bottleneck, self.scale, self.dropout = bottleneck, scale, dropout
        self.proxy = PROXIES[proxy]
        self.others, self.average, self.bare = others, average, bare

    def setup(self, model: Model, stream: StreamInfo) -> None:
        inject_adapters(model.backbone, self.bottleneck, self.scale, self.dropout)
        model.head = self.proxy(model.features)
        self.register_buffer("prototypes", torch.zeros(0, 0, model.features))
        self.register_buffer("bare_prototypes", torch.zeros(0, model.features))
        self.register_buffer("tasks", torch.zeros(0, dtype=torch.int64))

    def before_experience(self, experience: Experience) -> None:
        require(
            experience.new_classes == experience.classes,
            "strategy=ease: every class must belong to one task, so the stream must be class-incremental.",
        )
        self.run.model.head = self.proxy(self.run.model.features)  # anew for every task
        self.grow_head(experience)
        self.tasks = F.pad(self.tasks, (0, len(experience.classes)), value=experience.index)
        reset_adapters(self.run.model, self.generator("adapter", experience.index))

    @torch.no_grad()
    def after_experience(self, experience: Experience) -> None:
        for adapter in adapters_of(self.run.model):
            adapter.keep()
        parts = [(self.features(b.images), b.labels) for b in self.batches(experience)]
        features, labels = torch.cat([f for f, _ in parts], dim=1), torch.cat([y for _, y in parts])
        new = list(experience.classes)
        means = class_means(features, labels, experience.seen)[:, new].transpose(0, 1)
        subspaces, added = experience.index + 1, len(new)
        self.prototypes = F.pad(self.prototypes, (0, 0, 0, 1, 0, added))
        self.prototypes[new] = means[:, :subspaces]
        self.prototypes = synthesise(self.prototypes, self.tasks)
        if self.bare:
            self.bare_prototypes = torch.cat([self.bare_prototypes, means[:, -1]])

    def features(self, images: Tensor) -> Tensor:
        """Through the adapters of each task, and last without any if that counts: subspaces × B × d."""
        slots = [*range(int(self.tasks.max()) + 1), *([BARE] if self.bare else [])]
        return encode_slots(self.run.model, images, slots)

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        features = self.features(images)
        subspaces = self.prototypes.shape[1]
        similarity = cosines(features[:subspaces], self.prototypes.transpose(0, 1))
        others = self.others / max(1, subspaces - 1) if self.average else self.others
        weights = own_subspace_weights(self.tasks, subspaces, others)
        logits = (similarity * weights.T[:, None]).sum(0)
        if self.bare:
            logits = logits + self.bare * cosines(features[-1], self.bare_prototypes)
        return logits
