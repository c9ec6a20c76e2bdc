"""OSFT: the strongest singular directions of every weight are kept, the others learn the new task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl.errors import require, require_one_of
from cl.models.matrices import vectors
from cl.models.model import Model
from cl.models.subspace import (
    Held,
    HeldBlock,
    HeldFactors,
    SubspaceLayer,
    inject_subspaces,
    subspace_layers,
)
from cl.models.watching import watch_inputs
from cl.ops.subspaces import input_output_similarity, retained_shares
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo


class OSFT(Strategy):
    """Orthogonal subspace fine-tuning with adaptive SVD (Nayak et al., 2025). PEFT calls it OSF.

    Before each task every weight becomes W = U_h S_h V_hᵀ + U_l S_l V_lᵀ, the first term with the k largest
    singular values. U_l, S_l, V_l are trained by the plain loss; gradients are projected onto U_l ⟂ U_h and
    V_l ⟂ V_h, and after the step so are the weights: Adam and weight decay turn a projected gradient, so
    the projection of gradients alone (PEFT) does not keep the constraint. What W does to an input in the
    span of V_h is the same before and after. After the task W is multiplied out: nothing grows.

    schedule: how k = ⌊r · min(m, n)⌋ < min(m, n) is set. "adaptive", as in the paper: r_l = lowest_ratio +
    I_l (target_ratio − lowest_ratio), at most 1. I_l is max(0, mean cosine of a matrix's inputs x and W x)
    divided by the mean of these over all matrices, measured over `importance_images` of the task before (in
    the first task, of its own). The max is ours: negative cosines would push shares below the lowest and
    could bring the mean, which is divided by, near 0. "linear", as in the official scripts: the same r for
    all layers, from first_ratio in the first task to last_ratio in the last. projection: "two_sided" as in
    the official codes, or "block", the weaker constraint that the paper writes, U_hᵀ ΔW V_h = 0. targets:
    roles or ends of layer names; q, k and v of a fused layer are decomposed apart. train_others: train
    embeddings, norms and biases too, as the official code does and PEFT does not. The head is always trained.
    """

    cost = "a decomposition of every weight, a projection a step"
    importance: Tensor

    def __init__(
        self,
        schedule: str = "adaptive",
        lowest_ratio: float = 0.1,
        target_ratio: float = 0.8,
        importance_images: int = 256,
        first_ratio: float = 0.5,
        last_ratio: float = 0.9,
        projection: str = "two_sided",
        targets: Sequence[str] = ("attention", "mlp"),
        train_others: bool = True,
    ) -> None:
        super().__init__()
        require_one_of("strategy.schedule", schedule, ("adaptive", "linear"))
        kinds = {"two_sided": HeldFactors, "block": HeldBlock}
        require_one_of("strategy.projection", projection, kinds)
        ratios = {"lowest": lowest_ratio, "target": target_ratio}
        for name, ratio in (ratios | {"first": first_ratio, "last": last_ratio}).items():
            require(0 <= ratio < 1, f"strategy.{name}_ratio={ratio}: it must be in [0, 1).")
        require(importance_images >= 1, "strategy.importance_images: it must be at least 1.")
        self.schedule, self.lowest, self.target = schedule, lowest_ratio, target_ratio
        self.importance_images, self.first, self.last = importance_images, first_ratio, last_ratio
        self.kind, self.targets, self.train_others = kinds[projection], tuple(targets), train_others
        self.register_buffer("importance", torch.zeros(0))

    def setup(self, model: Model, stream: StreamInfo) -> None:
        self.experiences = stream.experiences
        layers = inject_subspaces(model.backbone, self.targets, self.kind)
        model.backbone.requires_grad_(self.train_others)
        for layer in layers:
            layer.base.weight.requires_grad_(False)
            layer.parts.requires_grad_(True)

    @property
    def layers(self) -> list[SubspaceLayer]:
        """The layers that are decomposed, in order."""
        return list(subspace_layers(self.run.model))

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        ratios = iter(self.ratios(experience).tolist())
        for layer in self.layers:
            layer.decompose([frozen_rank(next(ratios), m.directions) for m in layer.matrices])

    def ratios(self, experience: Experience) -> Tensor:
        """The share of directions that each matrix keeps in this task."""
        if self.schedule == "adaptive":
            if not len(self.importance):
                self.importance = self.measure(experience)
            return retained_shares(self.importance, self.lowest, self.target)
        progress = min(1.0, experience.index / max(1, self.experiences - 1))
        share = self.first + progress * (self.last - self.first)
        return torch.full((len(self.matrices),), share)

    @torch.no_grad()
    def measure(self, experience: Experience) -> Tensor:
        """I of every matrix: the mean cosine of its input and output over tokens and images."""
        layers = self.layers
        sums = [torch.zeros(len(layer.parts), device=self.run.device) for layer in layers]
        tokens = [0] * len(layers)

        def note(index: int, inputs: Tensor) -> None:
            weights = layers[index].weights()
            x = vectors(layers[index].base, inputs)
            sums[index] += torch.stack([input_output_similarity(x, w).sum() for w in weights])
            tokens[index] += len(x)

        self.run.model.eval()
        with watch_inputs(layers, note):
            for batch in self.batches(experience, limit=self.importance_images):
                self.run.model.backbone(batch.images)
        return torch.cat([total / count for total, count in zip(sums, tokens, strict=True)])

    @property
    def matrices(self) -> list[Held]:
        """The matrices of all layers, in order."""
        return [matrix for layer in self.layers for matrix in layer.matrices]

    def after_backward(self) -> None:
        for matrix in self.matrices:
            matrix.project_gradient()

    def after_step(self) -> None:
        for matrix in self.matrices:
            matrix.project()

    def after_experience(self, experience: Experience) -> None:
        held = sum(matrix.left.shape[1] for matrix in self.matrices)
        directions = sum(matrix.directions for matrix in self.matrices)
        self.log("frozen_share", torch.tensor(held / directions))
        for layer in self.layers:
            layer.merge()
        if self.schedule == "adaptive":
            self.importance = self.measure(experience)


def frozen_rank(ratio: float, directions: int) -> int:
    """⌊ratio · directions⌋, but at least one direction stays free."""
    return max(0, min(int(ratio * directions + 1e-6), directions - 1))
