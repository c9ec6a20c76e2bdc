"""Ridge regression from second moments, and the choice of its strength with one decomposition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ridge(gram: Tensor, cross: Tensor, strength: float) -> Tensor:
    """W = (G + λ I)⁻¹ Q: the minimum of ‖H W − Y‖² + λ ‖W‖² with G = Hᵀ H and Q = Hᵀ Y; float64.

    gram: M × M. cross: M × C. strength: λ. By Cholesky; if G + λ I is singular to working precision, by
    eigenvalues, where those that are zero up to rounding count as zero (the solution of least norm).
    """
    gram, cross = gram.double(), cross.double()
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram + strength * identity)
    if not int(failed):
        solution: Tensor = torch.cholesky_solve(cross, factor)
        return solution
    values, vectors = torch.linalg.eigh(gram)
    real = values > values[-1] * len(gram) * torch.finfo(values.dtype).eps
    inverse = torch.where(real, 1 / (values + strength), 0.0)
    weight: Tensor = vectors @ (inverse[:, None] * (vectors.T @ cross))
    return weight


def ridge_errors(
    features: Tensor,
    targets: Tensor,
    held_features: Tensor,
    held_targets: Tensor,
    strengths: Sequence[float],
) -> Tensor:
    """The mean squared error on held-out rows of ridge regression on the others, for every strength.

    features: n × M and held_features: m × M. targets: n × C and held_targets: m × C. One
    eigendecomposition of the smaller of H Hᵀ (n × n) and Hᵀ H (M × M) serves all strengths:
    (Hᵀ H + λ I)⁻¹ Hᵀ = Hᵀ (H Hᵀ + λ I)⁻¹.
    """
    H, Y = features.double(), targets.double()
    held, wanted = held_features.double(), held_targets.double()
    if len(H) < H.shape[1]:
        values, vectors = torch.linalg.eigh(H @ H.T)
        left, right = held @ (H.T @ vectors), vectors.T @ Y
    else:
        values, vectors = torch.linalg.eigh(H.T @ H)
        left, right = held @ vectors, vectors.T @ (H.T @ Y)
    values = values.clamp_min(0)  # below zero by rounding only
    answers = (left @ (right / (values + strength)[:, None]) for strength in strengths)
    return torch.stack([(answer - wanted).square().mean() for answer in answers])
