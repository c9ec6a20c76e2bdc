"""Quadratic springs that hold weights near where they were, by parameter name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cl.ops.tensors import TensorDict, leading, pad_to


class Springs(nn.Module):
    """Σ_k ½ Σ_i F_i^k (θ_i − θ_i^k)² for any number of tasks k, in the memory of one.

    A sum of quadratics is a quadratic:  ½ Σ_i S_i (θ_i − m_i)² + c  with the total stiffness
    S = Σ_k F^k, the centre m = Σ_k F^k θ^k / S, and a constant c. Value and gradient are those of the
    sum. A parameter that has grown (a head with new rows) is held only where it already was.
    """

    constant: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stiffness = TensorDict()
        self.centre = TensorDict()
        self.register_buffer("constant", torch.zeros((), dtype=torch.float64))

    def add(self, weights: Mapping[str, Tensor], stiffness: Mapping[str, Tensor]) -> None:
        """Attach springs of the given stiffness to the present weights (same names and shapes)."""
        for name, new in stiffness.items():
            at = weights[name].detach()
            old = pad_to(self.stiffness.get(name, new.new_zeros(0)), at.shape)
            centre = pad_to(self.centre.get(name, new.new_zeros(0)), at.shape)
            total = old + new
            share = torch.where(total > 0, new / total, 1.0)
            self.constant += 0.5 * (old * share * (at - centre) ** 2).sum().double()
            self.centre[name] = torch.lerp(centre, at, share)
            self.stiffness[name] = total

    def move(
        self, weights: Mapping[str, Tensor], stiffness: Mapping[str, Tensor], decay: float = 1.0
    ) -> None:
        """Move all springs to the present weights, with S ← decay · S + stiffness; c becomes 0."""
        for name, new in stiffness.items():
            at = weights[name].detach()
            old = pad_to(self.stiffness.get(name, new.new_zeros(0)), at.shape)
            self.stiffness[name] = decay * old + new
            self.centre[name] = at.clone()
        self.constant = torch.zeros_like(self.constant)

    def force(self, name: str, weight: Tensor) -> Tensor:
        """The gradient of the energy with respect to the parameter of that name: S (θ − m)."""
        stiffness = pad_to(self.stiffness.get(name, weight.new_zeros(0)), weight.shape)
        return stiffness * (
            weight - pad_to(self.centre.get(name, weight.new_zeros(0)), weight.shape)
        )

    def energy(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The value at the given weights; differentiable."""
        total = self.constant.float()
        for name, stiffness in self.stiffness.items():
            moved = leading(weights[name], stiffness.shape) - self.centre[name]
            total = total + 0.5 * (stiffness * moved**2).sum()
        return total
