"""Shrinking numbers towards zero."""

from __future__ import annotations

from torch import Tensor


def soft_threshold(values: Tensor, amount: float) -> Tensor:
    """sign(x) · max(|x| − amount, 0): the proximal step of amount · Σ|x|."""
    return values.sign() * (values.abs() - amount).clamp(min=0)


def shrink_then_cut(values: Tensor, amount: float) -> Tensor:
    """Shrink what is larger than `amount`, then cut what is smaller than it: zero for |x| < 2 · amount.

    Exactly |x| = amount stays as it is.
    """
    shrunk = values.where(values.abs() <= amount, values - amount * values.sign())
    return shrunk.where(shrunk.abs() >= amount, 0.0)


def climbing_threshold(step: int, steps: int, dense: float, levels: int) -> float:
    """The threshold at a step (from 0), as a share of the highest: 0 in the first `dense` share of the
    steps and just after it; then up in `levels` − 1 equal rises, evenly spread over the rest."""
    start = dense * steps
    if step <= start:
        return 0.0
    rises = int((step - start) * levels / (steps - start) + 1e-9) + 1
    return min(1.0, rises / (levels - 1))
