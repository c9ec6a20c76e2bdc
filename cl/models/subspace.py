"""Layers whose strongest singular directions are held while the others are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from cl.models.anatomy import find_targets, replace_layer
from cl.models.matrices import MatrixLayer, as_matrix, as_weight, multiply
from cl.ops.subspaces import without_block, without_span


class Held(ABC, nn.Module):
    """A matrix W = U diag(s) Vᵀ (m × n) of which the first k singular directions are held.

    left: U_h, m × k. right: V_h, n × k. fixed: the part of W that no parameter changes, m × n. All tensors
    are empty while the matrix is not decomposed.
    """

    left: Tensor
    right: Tensor
    fixed: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.register_buffer("left", torch.zeros(rows, 0))
        self.register_buffer("right", torch.zeros(columns, 0))
        self.register_buffer("fixed", torch.zeros(0, columns))

    @property
    def directions(self) -> int:
        """How many singular directions the matrix has: min(m, n)."""
        return min(len(self.left), len(self.right))

    def start(self, weight: Tensor, frozen: int) -> None:
        """Decompose a weight, in float64, and hold the `frozen` largest directions."""
        U, s, Vt = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        self.left = U[:, :frozen].to(weight)
        self.right = Vt[:frozen].mT.to(weight)
        self._start(weight, (U[:, :frozen] * s[:frozen]) @ Vt[:frozen], U, s, Vt)

    def clear(self) -> None:
        """Let go of everything."""
        rows, columns = len(self.left), len(self.right)
        self.left, self.right = self.left[:, :0], self.right[:, :0]
        self.fixed = self.fixed[:0]
        for parameter in self.parameters():
            parameter.grad = None
        self._clear(rows, columns)

    @abstractmethod
    def _start(self, weight: Tensor, held: Tensor, U: Tensor, s: Tensor, Vt: Tensor) -> None:
        """Set `fixed` and the parameters. held: the first k terms of the decomposition U, s, Vt of weight."""

    @abstractmethod
    def _clear(self, rows: int, columns: int) -> None:
        """Empty the parameters."""

    @abstractmethod
    def weight(self) -> Tensor:
        """The matrix, differentiable in the parameters."""

    @abstractmethod
    def project(self) -> None:
        """Put the parameters back where the held directions are not touched."""

    @abstractmethod
    def project_gradient(self) -> None:
        """The same for the gradients."""


class HeldFactors(Held):
    """W = U_h diag(s_h) V_hᵀ + U diag(s) V, with U ⟂ U_h and V ⟂ V_h: both sides are held.

    U: m × (p − k). s: p − k. V: (p − k) × n, with p = min(m, n). So U_hᵀ ΔW = 0 and ΔW V_h = 0.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns)
        self.U = nn.Parameter(torch.zeros(rows, 0))
        self.s = nn.Parameter(torch.zeros(0))
        self.V = nn.Parameter(torch.zeros(0, columns))

    def _start(self, weight: Tensor, held: Tensor, U: Tensor, s: Tensor, Vt: Tensor) -> None:
        k = self.left.shape[1]
        self.fixed = held.to(weight)
        for parameter, value in ((self.U, U[:, k:]), (self.s, s[k:]), (self.V, Vt[k:])):
            parameter.data = value.to(weight).contiguous()

    def _clear(self, rows: int, columns: int) -> None:
        self.U.data = self.U.data.new_zeros(rows, 0)
        self.s.data = self.s.data.new_zeros(0)
        self.V.data = self.V.data.new_zeros(0, columns)

    def weight(self) -> Tensor:
        return self.fixed + (self.U * self.s) @ self.V

    @torch.no_grad()
    def project(self) -> None:
        self.U.copy_(without_span(self.U, self.left))
        self.V.copy_(without_span(self.V.mT, self.right).mT)

    @torch.no_grad()
    def project_gradient(self) -> None:
        if self.U.grad is not None and self.V.grad is not None:
            self.U.grad.copy_(without_span(self.U.grad, self.left))
            self.V.grad.copy_(without_span(self.V.grad.mT, self.right).mT)


class HeldBlock(Held):
    """W = W_0 + change, with U_hᵀ · change · V_h = 0: only the block that both bases see is held.

    change: m × n, dense. What enters through V_h may leave outside U_h, and the other way round.
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns)
        self.change = nn.Parameter(torch.zeros(0, columns))

    def _start(self, weight: Tensor, held: Tensor, U: Tensor, s: Tensor, Vt: Tensor) -> None:
        self.fixed = weight.detach().clone()
        self.change.data = torch.zeros_like(self.fixed)

    def _clear(self, rows: int, columns: int) -> None:
        self.change.data = self.change.data[:0]

    def weight(self) -> Tensor:
        return self.fixed + self.change

    @torch.no_grad()
    def project(self) -> None:
        self.change.copy_(without_block(self.change, self.left, self.right))

    @torch.no_grad()
    def project_gradient(self) -> None:
        if self.change.grad is not None:
            self.change.grad.copy_(without_block(self.change.grad, self.left, self.right))


class SubspaceLayer(nn.Module):
    """A layer, of one matrix or of several below each other, that can be decomposed for a task.

    base holds the weight between two tasks and the bias always. matrices: how many there are, of one
    height. chosen: which of them are decomposed, by default all; the others stay as they are. parts: one
    `Held` for each that is.
    """

    def __init__(
        self,
        base: MatrixLayer,
        matrices: int,
        kind: type[Held] = HeldFactors,
        chosen: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.base = base
        self.base.weight.requires_grad_(False)
        rows, columns = as_matrix(base).shape
        self.count = matrices
        self.chosen = tuple(range(matrices) if chosen is None else chosen)
        held = [kind(rows // matrices, columns) for _ in self.chosen]
        self.parts = nn.ModuleList(held).to(base.weight)

    @property
    def matrices(self) -> list[Held]:
        """The parts, top to bottom."""
        return [part for part in self.parts if isinstance(part, Held)]

    @property
    def decomposed(self) -> bool:
        """Whether a task is being learned."""
        return len(self.matrices[0].fixed) > 0

    def decompose(self, frozen: Sequence[int]) -> None:
        """Begin a task with so many directions of each matrix held."""
        for part, weight, count in zip(self.matrices, self.weights(), frozen, strict=True):
            part.start(weight, count)

    def merge(self) -> None:
        """End the task: multiply out and let go of the factors; the output is unchanged."""
        self.base.weight.data = as_weight(self.base, self.weight().detach())
        for part in self.matrices:
            part.clear()

    def weight(self) -> Tensor:
        """The plain weight as a matrix, out × in; formed in full precision even under autocast."""
        if not self.decomposed:
            return as_matrix(self.base)
        weights = list(as_matrix(self.base).chunk(self.count))
        with torch.autocast(self.base.weight.device.type, enabled=False):
            for index, part in zip(self.chosen, self.matrices, strict=True):
                weights[index] = part.weight()
            return torch.cat(weights)

    def weights(self) -> list[Tensor]:
        """The plain weights of the matrices that are decomposed in a task, top to bottom."""
        weights = self.weight().chunk(self.count)
        return [weights[index] for index in self.chosen]

    def merged_state(self) -> dict[str, Tensor]:
        """The state of the plain layer that does the same."""
        state = {"weight": as_weight(self.base, self.weight().detach())}
        return state if self.base.bias is None else state | {"bias": self.base.bias.detach()}

    def forward(self, x: Tensor) -> Tensor:
        """What the plain layer takes, to what it gives."""
        return multiply(self.base, x, self.weight(), self.base.bias)


def inject_subspaces(
    module: nn.Module, targets: Sequence[str], kind: type[Held] = HeldFactors
) -> list[SubspaceLayer]:
    """Replace the layers that `targets` mean, in place; returns the new layers.

    targets: roles or ends of names, see `cl.models.anatomy.find_targets`, which also says what is wrong. A
    fused layer is three matrices.
    """
    for name, target in find_targets(module, targets).items():
        layer = SubspaceLayer(target.layer, target.parts, kind, target.chosen)
        replace_layer(module, name, layer)
    return list(subspace_layers(module))


def subspace_layers(module: nn.Module) -> Iterator[SubspaceLayer]:
    """The layers that can be decomposed, in order."""
    return (layer for layer in module.modules() if isinstance(layer, SubspaceLayer))
