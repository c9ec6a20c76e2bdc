"""DualPrompt: general prompts for all tasks, and an expert prompt for each, found by its key."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl.data import Batch
from cl.errors import require
from cl.models.anatomy import plain_vit
from cl.models.model import Model
from cl.models.prompts import existing, inject_prefixes, prompted, uniform
from cl.strategy import ParameterGroup, Strategy
from cl.stream import Experience, StreamInfo


class DualPrompt(Strategy):
    """Complementary prompting (Wang et al., 2022, "DualPrompt").

    Prefixes of keys and values in the frozen ViT's attention: G, shared by all tasks, in general_layers, and
    E_t, one per task, in expert_layers. In training the task's own E_t is used and
    L = CE over the current classes − pull · mean over images of cos(q, key_t);  at test the E_j with the
    largest cos(q, key_j), q the frozen ViT's feature of the image. Each image chooses for itself: the
    official code lets a batch vote, and mixes up the axes of prompt and batch.

    general_length, expert_length: tokens of a prefix. clip: the largest norm of the gradient; 0 for no
    limit. Layers count from 0; those that the backbone lacks are left out. A task's E_t starts from
    E_{t−1}, its key at random. Stored: an expert prompt and a key per task.
    """

    cost = "a second pass of each image"
    grows = "expert prompts"
    kept_experts: Tensor
    kept_keys: Tensor

    def __init__(
        self,
        general_layers: Sequence[int] = (0, 1),
        expert_layers: Sequence[int] = (2, 3, 4),
        general_length: int = 5,
        expert_length: int = 5,
        pull: float = 1.0,
        clip: float = 1.0,
    ) -> None:
        super().__init__()
        both = set(general_layers) & set(expert_layers)
        require(not both, f"strategy.expert_layers: {sorted(both)} are general_layers as well.")
        for name, count in (("general_length", general_length), ("expert_length", expert_length)):
            require(count >= 1, f"strategy.{name}={count}: it must be at least 1.")
        require(clip >= 0, f"strategy.clip={clip}: it must not be negative.")
        self.general_layers, self.expert_layers = tuple(general_layers), tuple(expert_layers)
        self.general_length, self.expert_length = general_length, expert_length
        self.pull, self.clip = pull, clip

    def setup(self, model: Model, stream: StreamInfo) -> None:
        generator, width = self.generator("prompts"), model.features
        depth = len(plain_vit(model.backbone).blocks)
        layers = [existing(some, depth) for some in (self.general_layers, self.expert_layers)]
        self.places = inject_prefixes(model.backbone, [*layers[0], *layers[1]])
        shapes = [(len(layers[0]), 2, self.general_length), (len(layers[1]), 2, self.expert_length)]
        self.general = nn.Parameter(uniform((*shapes[0], width), generator))
        self.expert = nn.Parameter(uniform((*shapes[1], width), generator))
        self.key = nn.Parameter(uniform((width,), generator))
        self.register_buffer("kept_experts", torch.zeros(0, *self.expert.shape))
        self.register_buffer("kept_keys", torch.zeros(0, width))

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        generator = self.generator("key", experience.index)
        self.key.data.copy_(uniform(self.key.shape, generator))

    def parameter_groups(self) -> list[ParameterGroup]:
        head = self.run.model.head.parameters()
        return [{"params": [self.general, self.expert, self.key, *head]}]

    def features(self, images: Tensor, experts: Tensor) -> Tensor:
        """With the general prompts and each image's own expert. experts: B × layers × 2 × length × width."""
        general = [prefix.expand(len(images), -1, -1, -1) for prefix in self.general]
        with prompted(self.places, [*general, *experts.unbind(1)]):
            return self.run.model.backbone(images)

    def loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            queries = self.run.model.backbone(batch.images)
        experts = self.expert.expand(len(batch.images), -1, -1, -1, -1)
        logits = self.run.model.head(self.features(batch.images, experts))
        loss = self.cross_entropy(logits, batch.labels)
        similarity = F.cosine_similarity(queries, self.key[None]).mean()
        self.log("cross_entropy", loss)
        self.log("key_similarity", similarity)
        return loss - self.pull * similarity

    def after_backward(self) -> None:
        if self.clip:
            nn.utils.clip_grad_norm_(self.parameter_groups()[0]["params"], self.clip)

    def after_experience(self, experience: Experience) -> None:
        self.kept_experts = torch.cat([self.kept_experts, self.expert.detach()[None]])
        self.kept_keys = torch.cat([self.kept_keys, self.key.detach()[None]])

    def choose(self, queries: Tensor) -> Tensor:
        """The task of each image: the one whose key is nearest to its query."""
        return (F.normalize(queries, dim=1) @ F.normalize(self.kept_keys, dim=1).T).argmax(1)

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        tasks = self.choose(self.run.model.backbone(images))
        return self.run.model.head(self.features(images, self.kept_experts[tasks]))
