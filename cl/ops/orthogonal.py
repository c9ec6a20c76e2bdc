"""Random orthonormal rows beside given ones."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def orthonormal_beside(old: Tensor, count: int, generator: Generator) -> Tensor:
    """`count` random rows of length 1, orthogonal to one another and to all rows of `old`; float32.

    old: R × d; it need not be orthonormal itself. The decomposition is in float64. The rows are what
    Gram–Schmidt would give from Gaussian vectors, up to their sign. When d < R + count there is no room
    beside `old`, and the rows are orthogonal to one another only.
    """
    width = old.shape[1]
    new = torch.randn(count, width, generator=generator, dtype=torch.float64)
    others = old.double().cpu() if len(old) + count <= width else new[:0]
    basis: Tensor = torch.linalg.qr(torch.cat([others, new]).T).Q.T
    return basis[len(others) :].to(old)
