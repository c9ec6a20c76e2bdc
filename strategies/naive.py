"""Naive fine-tuning: the lower bound that every method is compared with."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from cl.errors import require_one_of
from cl.strategy import Strategy


class Naive(Strategy):
    """Train everything on each experience as it comes, and do nothing else.

    classes: the cross-entropy is over the "current" experience's classes, or over all "seen" ones. The
    difference is tens of points: with "seen" the old classes' logits are pushed down.
    """

    neutral: ClassVar[dict[str, Any]] = {}

    def __init__(self, classes: Literal["current", "seen"] = "current") -> None:
        super().__init__()
        require_one_of("strategy.classes", classes, ("current", "seen"))
        self.loss_classes = classes
