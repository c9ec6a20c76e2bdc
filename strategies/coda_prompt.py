"""CODA-Prompt: every image's prompt is a weighted sum of components, of which each task adds some."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cl.data import Batch
from cl.errors import require
from cl.models.anatomy import plain_vit
from cl.models.model import Model
from cl.models.prompts import existing, inject_prefixes, prompted
from cl.ops.orthogonal import orthonormal_beside
from cl.strategy import ParameterGroup, Strategy
from cl.stream import Experience, StreamInfo

NAMES = ("prompts", "keys", "attention")


class CODAPrompt(Strategy):
    """Decomposed attention-based prompting (Smith et al., 2023).

    In each of `layers` there are components P_m with keys K_m and attention vectors A_m;
    w_m = cos(q ⊙ A_m, K_m),  q the frozen ViT's feature of the image;  p = Σ_m w_m P_m.  The first half of
    p's tokens are prefixes of the keys, the second of the values. Each task adds components / experiences
    new ones, which start as orthonormal rows, orthogonal to all earlier ones (Gram–Schmidt); the earlier ones
    are frozen but keep contributing.  L = CE over the current classes + orthogonality · Σ ‖X Xᵀ − I‖²,
    the mean over entries, for X = P, K and A with all tasks' rows.

    components: M, for the whole stream. length: tokens of p, even. layers: from 0; those that the backbone
    lacks are left out. orthogonality: μ; 0 in the present official code, for the start is orthogonal
    already. Stored: the components of all tasks.
    """

    cost = "a second pass of each image"
    grows = "prompt components"

    def __init__(
        self,
        components: int = 100,
        length: int = 8,
        layers: Sequence[int] = (0, 1, 2, 3, 4),
        orthogonality: float = 0.0,
    ) -> None:
        super().__init__()
        require(components >= 1, f"strategy.components={components}: it must be at least 1.")
        require(
            length >= 2 and length % 2 == 0,
            f"strategy.length={length}: it must be even, one half for keys and one for values.",
        )
        require(
            orthogonality >= 0, f"strategy.orthogonality={orthogonality}: it must not be negative."
        )
        self.components, self.length, self.layers = components, length, tuple(layers)
        self.orthogonality = orthogonality

    def setup(self, model: Model, stream: StreamInfo) -> None:
        layers = existing(self.layers, len(plain_vit(model.backbone).blocks))
        self.places = inject_prefixes(model.backbone, layers)
        share = max(1, self.components // stream.experiences)
        require(
            share * stream.experiences <= model.features,
            f"strategy.components={self.components}: more than {model.features} rows cannot be orthogonal.",
        )
        widths = (self.length * model.features, model.features, model.features)
        for name, width in zip(NAMES, widths, strict=True):
            self.register_parameter(name, nn.Parameter(torch.zeros(len(layers), share, width)))
            self.register_buffer(f"kept_{name}", torch.zeros(len(layers), 0, width))

    @torch.no_grad()
    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        for name in NAMES:
            new, generator = self.get_parameter(name), self.generator(name, experience.index)
            for row, old in zip(new, self.get_buffer(f"kept_{name}"), strict=True):
                row.copy_(orthonormal_beside(old, len(row), generator))

    def parameter_groups(self) -> list[ParameterGroup]:
        mine = [self.get_parameter(name) for name in NAMES]
        return [{"params": [*mine, *self.run.model.head.parameters()]}]

    def kept(self) -> list[Tensor]:
        """P, K and A of the finished tasks: each layers × m × width."""
        return [self.get_buffer(f"kept_{name}") for name in NAMES]

    def kept_and_current(self) -> list[Tensor]:
        """The same with the current task's behind them."""
        current = [self.get_parameter(name) for name in NAMES]
        return [torch.cat(pair, dim=1) for pair in zip(self.kept(), current, strict=True)]

    def forward(self, images: Tensor, rows: list[Tensor]) -> Tensor:
        """Logits over the classes seen, with prompts from `rows`: P, K and A."""
        backbone = self.run.model.backbone
        with torch.no_grad():
            queries = backbone(images)
        P, K, A = rows
        prefixes = (component_weights(queries, K, A) @ P).unflatten(2, (2, self.length // 2, -1))
        with prompted(self.places, list(prefixes)):
            return self.run.model.head(backbone(images))

    def loss(self, batch: Batch) -> Tensor:
        loss = self.cross_entropy(self(batch.images, self.kept_and_current()), batch.labels)
        self.log("cross_entropy", loss)
        return loss + self.penalty()

    def penalty(self) -> Tensor | float:
        if not self.orthogonality:
            return 0.0
        rows = self.kept_and_current()
        excess = [X @ X.mT - torch.eye(X.shape[1], device=X.device) for X in rows]
        penalty = torch.stack([x.square().mean((1, 2)).sum() for x in excess]).sum()
        self.log("orthogonality", penalty)
        return self.orthogonality * penalty

    def after_experience(self, experience: Experience) -> None:
        for name, rows in zip(NAMES, self.kept_and_current(), strict=True):
            setattr(self, f"kept_{name}", rows.detach())

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        return self(images, self.kept())


def component_weights(queries: Tensor, keys: Tensor, attention: Tensor) -> Tensor:
    """w_m = cos(q ⊙ A_m, K_m): layers × B × m, from B × width and twice layers × m × width.

    Written as products of matrices: no tensor of layers × B × m × width is made.
    """
    inner = queries @ (attention * keys).mT
    lengths = (queries.square() @ attention.square().mT).sqrt() * keys.norm(dim=-1)[:, None]
    return inner / lengths.clamp_min(1e-12)
