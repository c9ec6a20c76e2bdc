"""L2P: a pool of prompts, from which each image takes those whose keys are nearest."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl.data import Batch
from cl.errors import require, require_one_of
from cl.models.model import Model
from cl.models.prompts import inject_token_prompt, prompt_outputs, uniform
from cl.strategy import ParameterGroup, Strategy
from cl.stream import StreamInfo


class L2P(Strategy):
    """Learning to prompt (Wang et al., 2022).

    The query q is the frozen ViT's feature of the image. The `top` prompts P_j whose keys K_j have the
    largest cos(q, K_j) are put before the patches of a second pass; the head reads the mean of their outputs.
    L = CE over the current classes − pull · mean over images of Σ_{j chosen} cos(q, K_j).

    pool, length: N prompts of so many tokens. top: how many an image takes. clip: the largest norm of the
    gradient; 0 for no limit. selection: "image", or "batch": all images of a batch take the prompts that
    most of them would. The official code does the latter, and its published figures rest on it; but test
    images of one task then vote together, which tells their task, so it is not for comparisons.
    """

    cost = "a second pass of each image"

    def __init__(
        self,
        pool: int = 10,
        length: int = 5,
        top: int = 5,
        pull: float = 0.1,
        clip: float = 1.0,
        selection: str = "image",
    ) -> None:
        super().__init__()
        for name, count in (("length", length), ("top", top)):
            require(count >= 1, f"strategy.{name}={count}: it must be at least 1.")
        require(pool >= top, f"strategy.pool={pool}: there must be at least top={top} prompts.")
        require(clip >= 0, f"strategy.clip={clip}: it must not be negative.")
        require_one_of("strategy.selection", selection, ("image", "batch"))
        if selection == "batch":
            warnings.warn(
                "strategy.selection=batch: the answer for an image depends on its batch, "
                "and batches of one task tell the task.",
                stacklevel=2,
            )
        self.pool, self.length, self.top = pool, length, top
        self.pull, self.clip, self.selection = pull, clip, selection

    def setup(self, model: Model, stream: StreamInfo) -> None:
        self.places = [inject_token_prompt(model.backbone)]  # in a list: it is the model's module
        generator = self.generator("prompts")
        self.prompts = nn.Parameter(uniform((self.pool, self.length, model.features), generator))
        self.keys = nn.Parameter(uniform((self.pool, model.features), generator))

    def parameter_groups(self) -> list[ParameterGroup]:
        return [{"params": [self.prompts, self.keys, *self.run.model.head.parameters()]}]

    def choose(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Which prompts each image takes, B × top, and the cosines of their keys with its query."""
        similarity = F.normalize(queries, dim=1) @ F.normalize(self.keys, dim=1).T
        chosen = similarity.topk(self.top, dim=1).indices
        if self.selection == "batch":
            votes = F.one_hot(chosen, self.pool).sum((0, 1))
            chosen = votes.topk(self.top).indices.expand(len(queries), -1)
        return chosen, similarity.gather(1, chosen)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the head reads, B × features, and the cosines of the chosen keys, B × top."""
        backbone = self.run.model.backbone
        with torch.no_grad():
            queries = backbone(images)
        chosen, similarity = self.choose(queries)
        tokens = self.prompts[chosen].flatten(1, 2)
        return prompt_outputs(backbone, images, self.places[0], tokens), similarity

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, B × classes, and the cosines of the chosen keys, B × top."""
        features, similarity = self.read(images)
        return self.run.model.head(features), similarity

    def loss(self, batch: Batch) -> Tensor:
        logits, similarity = self(batch.images)
        loss, pull = self.cross_entropy(logits, batch.labels), similarity.sum(1).mean()
        self.log("cross_entropy", loss)
        self.log("key_similarity", pull)
        return loss - self.pull * pull

    def after_backward(self) -> None:
        if self.clip:
            nn.utils.clip_grad_norm_(self.parameter_groups()[0]["params"], self.clip)

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        return self(images)[0]
