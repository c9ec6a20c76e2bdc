"""HFT: every task trains a random half of the model and leaves the other half as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Generator, Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from cl.data.loading import Batch
from cl.errors import require, require_one_of
from cl.models.units import Unit, find_units
from cl.strategy import Strategy
from cl.stream import Experience

Item = TypeVar("Item")


class HFT(Strategy):
    """Half fine-tuning (Hui et al., 2024).

    Before each task a half of the blocks' weights is drawn anew and frozen; the rest is trained with the
    plain loss:  ϑ ← ϑ − η ∇_ϑ L(ϑ, ψ),  ψ ← ψ. No reset, no extra loss, no extra memory.

    level: what is drawn. "category" (the paper's best): in every block, half of the attention matrices
    q, k, v and the projection, half of the MLP's matrices, and half of the norms. Where that number is odd,
    half of the blocks (rounded down) freeze the larger part; but of a block's n convolutions ⌊n/2⌋ are frozen
    in every block. "layer": half of the blocks. "model": half of all matrices and norms, in any place.
    train_embeddings: train what lies outside the blocks, that is the embeddings and the last norm, or the
    stem. The head is always trained. redraw: before every "task", as the paper has it, or before every
    "epoch", as one account of it says. Then all gradients are computed, and what the optimiser remembers of
    a weight stays with it while it is frozen.

    The paper treats language models and has no public code; for vision this is our mapping. The rows of
    q, k and v in a fused layer are matrices of their own, a bias goes with its matrix, and a batch norm
    with its convolution: frozen, its statistics do not move either. The share of the backbone's numbers
    that was trained is logged, since it is not exactly one half.
    """

    def __init__(
        self, level: str = "category", train_embeddings: bool = True, redraw: str = "task"
    ) -> None:
        super().__init__()
        require_one_of("strategy.level", level, ("category", "layer", "model"))
        require_one_of("strategy.redraw", redraw, ("task", "epoch"))
        self.level, self.train_embeddings, self.redraw = level, train_embeddings, redraw
        self.held: list[tuple[str, Tensor, Tensor]] = []  # weight, its frozen rows, their values
        self.still: list[str] = []  # batch norms that are frozen

    def before_experience(self, experience: Experience) -> None:
        self.grow_head(experience)
        self.run.model.requires_grad_(True)
        self.run.model.zero_grad()  # a gradient left from the last task would still be applied
        self.random = self.generator("half", experience.index)
        self.epoch = 0
        self.freeze(self.draw(self.random))

    def draw(self, generator: Generator) -> list[Unit]:
        """The units that stay as they are in this task."""
        units = find_units(self.run.model.backbone)
        require(bool(units), "strategy=hft: the backbone has no blocks to choose from.")
        if self.level == "model":
            return draw_half([units], generator)
        if self.level == "layer":
            chosen = draw_half([grouped(units, "block")], generator)
            return [unit for block in chosen for unit in block]
        return [
            unit
            for kind in grouped(units, "kind")
            for unit in draw_half(grouped(kind, "block"), generator, kind[0].kind != "conv")
        ]

    def freeze(self, frozen: Sequence[Unit]) -> None:
        """Remember the values of what is frozen; a whole tensor is taken from the optimiser if for good."""
        weights = dict(self.run.model.backbone.named_parameters())
        masks = {name: torch.zeros(len(w), dtype=torch.bool) for name, w in weights.items()}
        for unit in frozen:
            for name in unit.parameters:
                masks[name][unit.rows or slice(None)] = True
        if not self.train_embeddings:
            inside = {
                name for unit in find_units(self.run.model.backbone) for name in unit.parameters
            }
            for name in weights.keys() - inside:
                masks[name][:] = True
        self.held = []
        for name, mask in masks.items():
            if mask.all() and self.redraw == "task":
                weights[name].requires_grad_(False)
            elif mask.any():
                rows = mask.nonzero().flatten().to(weights[name].device)
                self.held.append((name, rows, weights[name].detach()[rows].clone()))
        free = {name.rpartition(".")[0] for name, mask in masks.items() if not mask.all()}
        self.still = [name for name, _ in self.norms() if name not in free]

    def before_step(self, batch: Batch) -> None:
        if self.redraw == "epoch" and self.epoch < self.run.progress.epoch:
            self.epoch = self.run.progress.epoch
            self.freeze(self.draw(self.random))
        for name, layer in self.norms():
            layer.train(self.run.model.training and name not in self.still)

    def after_backward(self) -> None:
        for weight, rows, _ in self.held_weights():
            if weight.grad is not None:
                weight.grad.index_fill_(0, rows, 0.0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Momentum and weight decay move rows without gradient, so they are put back."""
        for weight, rows, values in self.held_weights():
            weight.index_copy_(0, rows, values)

    def norms(self) -> list[tuple[str, _BatchNorm]]:
        """The batch norms of the backbone, with their names."""
        named = self.run.model.backbone.named_modules()
        return [(name, layer) for name, layer in named if isinstance(layer, _BatchNorm)]

    def held_weights(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The weights of which rows are frozen, these rows, and their values."""
        weights = dict(self.run.model.backbone.named_parameters())
        return ((weights[name], rows, values) for name, rows, values in self.held)

    def after_experience(self, experience: Experience) -> None:
        weights = list(self.run.model.backbone.parameters())
        held, self.held = sum(values.numel() for _, _, values in self.held), []
        trained = sum(weight.numel() for weight in weights if weight.requires_grad) - held
        self.log("trained_share", torch.tensor(trained / sum(weight.numel() for weight in weights)))


def grouped(units: Sequence[Unit], field: str) -> list[list[Unit]]:
    """The units that share the value of a field, in order."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        groups.setdefault(getattr(unit, field), []).append(unit)
    return list(groups.values())


def draw_half(
    groups: Sequence[Sequence[Item]], generator: Generator, alternate: bool = True
) -> list[Item]:
    """Half of each group at random, rounded down.

    alternate: of the groups of odd size, half (rounded down) give the larger part instead.
    """
    odd = [index for index, group in enumerate(groups) if alternate and len(group) % 2]
    order = torch.randperm(len(odd), generator=generator)[: len(odd) // 2]
    larger = {odd[position] for position in order.tolist()}
    return [
        group[position]
        for index, group in enumerate(groups)
        for position in torch.randperm(len(group), generator=generator)[
            : len(group) // 2 + (index in larger)
        ].tolist()
    ]
