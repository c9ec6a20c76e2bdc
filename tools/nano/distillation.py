"""Stage 2: what the student is, what it sees in a step, and what it is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from cl.models.nano import NANO_NAME
from nano.cache import CHUNK, COPIES, GLYPHS, GRID, Cache, tokens
from nano.views import SEED


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters of the training stage."""

    steps: int = 3800
    batch: int = 128
    written: int = 16  # glyphs in a batch, besides the views; two drawings of each
    rate: float = 1.5e-3
    warm_up: int = 300
    weight_decay: float = 0.05
    shrinkage: float = 1.0  # of the whitening, in units of a standardised feature's variance
    temperature: float = 1.0  # of the softened predictions
    direction: float = 2.0  # weights of the losses, in the order of `losses`
    value: float = 1.0
    local: float = 0.5
    prediction: float = 1.0
    relation: float = 0.3
    glyph: float = 0.08
    average: float = 0.998  # decay of the moving average of the weights
    layers: str = "0,1,2,3"  # the teacher's blocks that the student starts from; "" for random


class Targets(nn.Module):
    """Teacher features → standardised, ZCA-whitened class token; standardised patch tokens; logits.

    With C the correlation matrix of the class token's 192 features, the whitened token is
    (C + shrinkage)^(-1/2) (f - mean) / deviation, scaled to a mean variance of one. Class means are
    better separated by their angles there than among the raw features.
    """

    def __init__(self, features: np.ndarray, head: nn.Linear, shrinkage: float) -> None:
        super().__init__()
        self.head = head.requires_grad_(False)
        sample = torch.from_numpy(features[:: max(1, len(features) // 20_000)]).double()
        token, patches = sample[:, 0], sample[:, 1:].flatten(0, 1)
        deviation = token.std(0)
        values, vectors = torch.linalg.eigh(torch.corrcoef(token.T))
        root = vectors @ torch.diag((values + shrinkage).rsqrt()) @ vectors.T
        root *= ((values / (values + shrinkage)).mean()).rsqrt()
        self.register_buffer("mean", token.mean(0).float())
        self.register_buffer("deviation", deviation.float())
        self.register_buffer("whiten", (root / deviation).T.float())
        self.register_buffer("patch_mean", patches.mean(0).float())
        self.register_buffer("patch_deviation", patches.std(0).float())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        token, patches = features[:, 0], features[:, 1:]
        whitened = (token - self.mean) @ self.whiten
        return whitened, (patches - self.patch_mean) / self.patch_deviation, self.head(token)


class Student(nn.Module):
    """The nano backbone, and two linear maps that are dropped afterwards."""

    def __init__(self, targets: Targets) -> None:
        super().__init__()
        self.backbone = timm.create_model(NANO_NAME)
        self.local = nn.Linear(192, 192)
        nn.init.zeros_(self.local.weight)
        self.classifier = nn.Linear(192, 1000)
        with torch.no_grad():  # the teacher's own head, written in the whitened coordinates
            weight = torch.linalg.solve(targets.whiten, targets.head.weight.T).T
            self.classifier.weight.copy_(weight)
            self.classifier.bias.copy_(targets.head(targets.mean))

    def inherit(self, teacher: nn.Module, layers: list[int]) -> None:
        """Start from some of the teacher's blocks; embeddings are resampled to 4-pixel patches."""
        state = {name: value for name, value in teacher.state_dict().items() if "head" not in name}
        own = {name: value for name, value in state.items() if "blocks." not in name}
        for place, layer in enumerate(layers):
            prefix = f"blocks.{layer}."
            for name, value in state.items():
                if name.startswith(prefix):
                    own[f"blocks.{place}.{name.removeprefix(prefix)}"] = value
        self.backbone.load_state_dict(checkpoint_filter_fn(own, self.backbone))

    @torch.no_grad()
    def standardise(self, views: Tensor) -> None:
        """Rescale the last norm so that the class token starts on the scale of the targets."""
        token, norm = self.backbone(views), self.backbone.norm
        deviation = token.std(0)
        norm.weight /= deviation
        norm.bias.copy_((norm.bias - token.mean(0)) / deviation)


@dataclass
class Batch:
    """Views and teacher features of N views; then two drawings of each of M glyphs."""

    views: Tensor  # (N+2M)×3×32×32 in [-1, 1]; the last 2M are drawings, M first, M second ones
    features: Tensor  # N×(1+GRID²)×192


LOSSES = ("direction", "value", "local", "prediction", "relation", "glyph")


def losses(student: Student, targets: Targets, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """The losses, unweighted, each a mean over the batch.

    direction: 1 - cosine to the whitened class token; value: its mean squared error; local: mean
    squared error of the patch tokens through a linear map; prediction: Kullback-Leibler divergence
    of the softened ImageNet predictions; relation: mean squared difference of the N×N cosines, ×10;
    glyph: cross-entropy of finding a drawing's partner among the others by 10 × the cosine, which
    asks that the hand, the pen and the colours matter less than what is drawn.
    """
    n, t = len(batch.features), recipe.temperature
    token, patches, logits = targets(batch.features)
    out = tokens(student.backbone, batch.views)
    own, own_patches = out[:n, 0].float(), student.local(out[:n, 1:]).float()
    own_logits = student.classifier(out[:n, 0]).float()
    own_log, log = F.log_softmax(own_logits / t, 1), F.log_softmax(logits / t, 1)
    cosines = [F.normalize(x, dim=1) @ F.normalize(x, dim=1).T for x in (own, token)]
    drawn = F.normalize(out[n:, 0].float(), dim=1)
    among = (10 * drawn @ drawn.T).float().fill_diagonal_(-math.inf)
    partner = torch.arange(len(drawn), device=drawn.device).roll(len(drawn) // 2)
    return {
        "direction": 1 - F.cosine_similarity(own, token).mean(),
        "value": F.mse_loss(own, token),
        "local": F.mse_loss(own_patches, patches),
        "prediction": t * t * F.kl_div(own_log, log, reduction="batchmean", log_target=True),
        "relation": 10 * F.mse_loss(cosines[0], cosines[1]),
        "glyph": F.cross_entropy(among, partner),
    }


class Batches:
    """The batch of a step; the views of half of the batches are mirrored.

    The order is a fresh permutation each epoch and depends on the step alone.
    """

    def __init__(self, cache: Cache, written: np.ndarray, recipe: Recipe, device: torch.device):
        self.cache, self.written, self.recipe, self.device = cache, written, recipe, device
        self.epoch, self.order = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> Batch:
        total, size = self.cache.chunks * CHUNK, self.recipe.batch
        epoch, place = divmod(step, total // size)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([SEED, epoch]).permutation(total)
        rows = np.sort(self.order[place * size : (place + 1) * size])
        views = torch.from_numpy(self.cache.views[rows])
        features = torch.from_numpy(self.cache.features[rows]).to(self.device).float()
        rng = np.random.default_rng([SEED, 1, step])
        if rng.random() < 0.5:
            grid = features[:, 1:].unflatten(1, (GRID, GRID)).flip(2).flatten(1, 2)
            views, features = views.flip(3), torch.cat([features[:, :1], grid], 1)
        kinds = np.tile(rng.choice(GLYPHS, self.recipe.written, replace=False), 2)
        drawn = self.written[kinds, rng.integers(COPIES, size=len(kinds))]
        views = torch.cat([views, torch.from_numpy(drawn)]).to(self.device).float() / 127.5 - 1
        return Batch(views, features)
