"""Subspaces: orthonormal bases, and how far two of them overlap."""

from __future__ import annotations

import torch
from torch import Tensor


def row_basis(matrix: Tensor) -> Tensor:
    """An orthonormal basis of the row space, as columns. … × R × d to … × d × min(R, d), float64."""
    basis: Tensor = torch.linalg.qr(matrix.double().mT).Q
    return basis


def row_space_overlap(old: Tensor, new: Tensor) -> Tensor:
    """‖Q_oldᵀ Q_new‖_F² / r: the share of the new row space that lies in the old one, in [0, 1].

    old: … × R × d. new: … × r × d. The mean over the leading dimensions; 0 when R is 0. It does not
    change when either matrix is scaled. The rows are taken to be independent.
    """
    if old.shape[-2] == 0:
        return new.new_zeros(())
    inner = row_basis(old).mT @ row_basis(new)
    return (inner.square().sum((-2, -1)) / new.shape[-2]).mean().to(new.dtype)
