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


def without_span(matrix: Tensor, basis: Tensor) -> Tensor:
    """`matrix` less the part of its columns in the span of an orthonormal basis.

    matrix: … × d × n. basis: … × d × k, orthonormal columns.
    """
    return matrix - basis @ (basis.mT @ matrix)


def into_null_space(rows: Tensor, old: Tensor) -> Tensor:
    """`rows` turned into the null space of `old`: each less its part in old's row space, at its length.

    rows: … × r × d. old: … × R × d, with independent rows, R < d. Worked out in float64.
    """
    outside = without_span(rows.double().mT, row_basis(old)).mT
    length = rows.double().norm(dim=-1, keepdim=True)
    turned: Tensor = outside * length / outside.norm(dim=-1, keepdim=True)
    return turned.to(rows)


def without_block(matrix: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`matrix` less the block that both bases see: M − L (Lᵀ M R) Rᵀ.

    matrix: m × n. left: m × k and right: n × k, orthonormal columns.
    """
    return matrix - left @ (left.mT @ matrix @ right) @ right.mT


def input_output_similarity(inputs: Tensor, weight: Tensor) -> Tensor:
    """The cosine of x and W x, one number for each input. inputs: … × n. weight: m × n.

    If m ≠ n both vectors are cut to their first min(m, n) entries.
    """
    size = min(weight.shape)
    outputs = inputs @ weight[:size].mT
    return torch.nn.functional.cosine_similarity(inputs[..., :size], outputs, dim=-1)


def retained_shares(importance: Tensor, lowest: float, target: float) -> Tensor:
    """How much of each layer is kept: lowest + I_l / mean(I) · (target − lowest), at most 1.

    importance: one number per layer. Negative ones count as 0; if none is positive all are equal.
    """
    positive = importance.clamp(min=0)
    mean = positive.mean()
    relative = positive / mean if mean > 0 else torch.ones_like(positive)
    return (lowest + relative * (target - lowest)).clamp(max=1.0)


def complement(basis: Tensor) -> Tensor:
    """An orthonormal basis of what is orthogonal to a basis: d × k to d × (d − k)."""
    full: Tensor = torch.linalg.qr(basis, mode="complete").Q
    return full[:, basis.shape[1] :]


def residual_directions(matrix: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors and values of (I − M Mᵀ) · matrix, strongest first.

    matrix: d × n. basis: M, d × k, orthonormal columns. The vectors (at most d − k) are found within the
    complement of M, so they are orthogonal to it even where the singular values are nearly 0.
    """
    outside = complement(basis)
    U, values, _ = torch.linalg.svd(outside.mT @ matrix, full_matrices=False)
    return outside @ U, values


def extend_basis(basis: Tensor, matrix: Tensor, coverage: float) -> Tensor:
    """Gradient projection memory (Saha et al., 2021): add the fewest directions with which the basis
    covers the share `coverage` of the squared norm of `matrix`; at least one if it is empty.

    basis: d × k, orthonormal columns. matrix: d × n.
    """
    directions, values = residual_directions(matrix, basis)
    missing = values.square().sum() - values.square().cumsum(0)  # after 1, 2, … of them
    allowed = (1 - coverage) * matrix.square().sum()
    count = 0
    if not basis.shape[1] or values.square().sum() > allowed:
        count = min(len(values), int((missing > allowed).sum()) + 1)
    return torch.cat([basis, directions[:, :count]], dim=1)
