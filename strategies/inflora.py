"""InfLoRA: each task trains in directions that are the new inputs' own and strange to the old ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cl.errors import require, require_one_of
from cl.models.lora import LoRALayer, inject_lora, lora_layers
from cl.models.matrices import vectors
from cl.models.model import Model
from cl.models.watching import watch_inputs
from cl.ops.subspaces import extend_basis, residual_directions
from cl.ops.tensors import TensorDict
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo


class InfLoRA(Strategy):
    """Interference-free low-rank adaptation (Liang and Li, 2024).

    W + B A with A designed before the task and fixed, B trained from 0. With H = mean x xᵀ over the tokens
    that enter a layer and M an orthonormal basis of the old tasks' inputs, the rows of A are the leading left
    singular vectors of (I − M Mᵀ) H, over √3: an input in the span of M is answered as before. After
    the task H is taken anew, M gains the fewest directions with which it covers the share
    ε_t = coverage + (final_coverage − coverage) · t/T of H (t tasks before, T in the stream), and
    B A is added to W. Kept is M: d × d numbers per layer at most, all of them reserved from the start.
    The original keeps M or its complement, whichever is narrower; both give the same projection.

    rank: rows of A. targets: roles or ends of layer names; the k and v rows of a fused layer share
    A. coverage, final_coverage: ε_0 and what ε would reach at t = T; 0.95 for CIFAR, 0.98 for ImageNet-R.
    energy: "squared" is the share of ‖H‖², as in the official code, to which the values of ε belong;
    "variance" the share of the inputs' own squared length, trace H. first_basis: "covering", or
    "official", which in the first task leaves out the direction that reaches ε_0. H is taken without
    augmentation.
    """

    cost = "two passes and a decomposition"

    def __init__(
        self,
        rank: int = 10,
        targets: Sequence[str] = ("k", "v"),
        coverage: float = 0.95,
        final_coverage: float = 1.0,
        energy: str = "squared",
        first_basis: str = "covering",
    ) -> None:
        super().__init__()
        for name, value in (("coverage", coverage), ("final_coverage", final_coverage)):
            require(0 <= value <= 1, f"strategy.{name}={value}: it must be in [0, 1].")
        require_one_of("strategy.energy", energy, ("squared", "variance"))
        require_one_of("strategy.first_basis", first_basis, ("covering", "official"))
        self.rank, self.targets = rank, tuple(targets)
        self.coverage, self.final_coverage = coverage, final_coverage
        self.energy, self.first_basis = energy, first_basis
        self.memory = TensorDict()

    def setup(self, model: Model, stream: StreamInfo) -> None:
        self.experiences = stream.experiences
        model.backbone.requires_grad_(False)
        for index, layer in enumerate(
            inject_lora(model.backbone, self.targets, self.rank, self.rank)
        ):
            layer.A.requires_grad_(False)
            width = layer.A.shape[2]
            require(
                self.rank <= width, f"strategy.rank={self.rank}: at most {width} for this backbone."
            )
            self.memory[str(index)] = layer.base.weight.new_zeros(width, width)

    @property
    def layers(self) -> list[LoRALayer]:
        """The adapted layers, in order."""
        return list(lora_layers(self.run.model))

    def basis(self, index: int) -> Tensor:
        """M of a layer, d × k, float64; its columns stand before columns of zeros."""
        memory = self.memory[str(index)].double()
        return memory[:, memory.any(0)]

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        for index, (layer, H) in enumerate(zip(self.layers, self.moments(experience), strict=True)):
            directions, _ = residual_directions(H, self.basis(index))
            rows = directions[:, : self.rank].mT / math.sqrt(3)
            layer.A.data.zero_()  # if fewer than `rank` directions are left, the others stay 0
            layer.A.data[:, : len(rows)] = rows.to(layer.A)
            layer.B.data.zero_()

    @torch.no_grad()
    def moments(self, experience: Experience) -> list[Tensor]:
        """H of every layer, d × d, float64."""
        layers = self.layers
        sums = [
            torch.zeros_like(self.memory[str(i)], dtype=torch.float64) for i in range(len(layers))
        ]
        tokens = [0] * len(layers)

        def add(index: int, inputs: Tensor) -> None:
            x = vectors(layers[index].base, inputs)
            sums[index] += (x.mT @ x).double()
            tokens[index] += len(x)

        self.run.model.eval()
        with watch_inputs(layers, add):
            for batch in self.batches(experience):
                self.run.model.backbone(batch.images)
        return [total / count for total, count in zip(sums, tokens, strict=True)]

    def after_experience(self, experience: Experience) -> None:
        progress = experience.index / self.experiences
        coverage = self.coverage + (self.final_coverage - self.coverage) * progress
        shares = []
        for index, H in enumerate(self.moments(experience)):
            old = self.basis(index)
            basis = extend_basis(old, self.root(H), coverage)
            if self.first_basis == "official" and experience.index == 0:
                basis = basis[:, : max(1, basis.shape[1] - 1)]
            memory = self.memory[str(index)]
            memory[:, : basis.shape[1]] = basis.to(memory)
            shares.append(basis.shape[1] / len(basis))
        self.log("memory_share", torch.tensor(shares).mean())
        for layer in self.layers:
            layer.merge()

    def root(self, H: Tensor) -> Tensor:
        """The matrix whose squared norm is the energy: H itself, or its square root."""
        if self.energy == "squared":
            return H
        values, vectors = torch.linalg.eigh(H)
        return vectors * values.clamp(min=0).sqrt()
