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
from cl.models.tuning import inject_scale_shift, inject_visual_prompts, sharing_copy
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo

ADAPTATIONS = ("adapter", "ssf", "vpt_shallow", "vpt_deep", "finetune")


class APER(Strategy):
    """Adapt and merge (Zhou et al., 2023; first called ADAM).

    In the first experience only, the network is adapted with a throw-away cosine head. From then on both
    networks are frozen, Φ(x) = [φ_pretrained(x); φ_adapted(x)], and  ŷ = argmax_c cos(Φ(x), P_c)  with
    P_c the mean of Φ over the un-augmented training images of class c. It is one cosine of the whole
    vector, not the sum of two, so the branch with the longer features counts for more.

    adaptation: what is trained: in a ViT "adapter" (bottleneck adapters), "ssf" (a scale and a shift for
    every layer's output), "vpt_shallow" or "vpt_deep" (visual prompts); "finetune" trains a copy of the
    whole backbone, which may be any. bottleneck, scale, dropout: of the adapters. prompts: how many, in
    each layer if deep. Stored: what was trained, once, and 2 × features numbers per class.
    """

    cost = "less: after the first task one pass, no steps; at test two"
    grows = "prototypes of double width"

    def __init__(
        self,
        adaptation: str = "adapter",
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
        prompts: int = 5,
    ) -> None:
        super().__init__()
        require_one_of("strategy.adaptation", adaptation, ADAPTATIONS)
        self.adaptation, self.bottleneck = adaptation, bottleneck
        self.scale, self.dropout, self.prompts = scale, dropout, prompts

    def setup(self, model: Model, stream: StreamInfo) -> None:
        backbone = model.backbone
        if self.adaptation == "adapter":
            inject_adapters(backbone, self.bottleneck, self.scale, self.dropout)
        elif self.adaptation == "finetune":
            self.pretrained = deepcopy(backbone).requires_grad_(False).eval()
        else:
            self.twin = [sharing_copy(backbone)]  # in a list: its weights are the model's
            if self.adaptation == "ssf":
                inject_scale_shift(backbone, self.generator("scales"))
            else:
                inject_visual_prompts(backbone, self.prompts, deep=self.adaptation == "vpt_deep")
        model.head = PrototypeHead(2 * model.features)

    def before_experience(self, experience: Experience) -> None:
        self.gradient_free = experience.index > 0
        if not self.gradient_free:
            self.own_head = begin_first_session(self.run.model, experience.seen, self.generator)
        self.grow_head(experience)

    @torch.no_grad()
    def after_experience(self, experience: Experience) -> None:
        if experience.index == 0:
            end_first_session(self.run.model, self.own_head)
            del self.own_head
            self.grow_head(experience)
        for batch in self.batches(experience):
            self.run.model.head.update(self.features(batch.images), batch.labels)

    def features(self, images: Tensor) -> Tensor:
        """The pretrained and the adapted features, B × 2 · features."""
        if self.adaptation == "adapter":
            return torch.cat(list(encode_slots(self.run.model, images, [BARE, 0])), dim=1)
        pretrained = self.pretrained if self.adaptation == "finetune" else self.twin[0]
        return torch.cat([pretrained(images), self.run.model.encode(images)], dim=1)

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        return self.run.model.head(self.features(images))
