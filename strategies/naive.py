"""Naive fine-tuning: the lower bound that every method is compared with."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from cl.errors import require, require_one_of
from cl.models.adapters import inject_adapters, reset_adapters
from cl.models.model import Model
from cl.objective import Classification
from cl.strategy import ParameterGroup, Strategy, backbone_and_head
from cl.stream import StreamInfo


class Naive(Strategy):
    """Train everything on each experience as it comes, and do nothing else.

    What papers call naive, or "Finetune", is several things, tens of points apart; say which:
    classes: the cross-entropy is over the "current" experience's classes, or over all "seen" ones, which
    pushes the old classes' logits down. backbone_factor: the backbone's learning rate relative to the
    head's; 0.01 is a slow learner, SLCA without its alignment. bottleneck: train only bottleneck adapters of
    this width in a ViT, the same ones in all tasks; 0 trains the backbone itself.
    """

    neutral: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        classes: Literal["current", "seen"] = "current",
        backbone_factor: float = 1.0,
        bottleneck: int = 0,
    ) -> None:
        super().__init__()
        require_one_of("strategy.classes", classes, ("current", "seen"))
        require(
            backbone_factor > 0,
            f"strategy.backbone_factor={backbone_factor}: it must be positive. "
            "A backbone that never learns is strategy=frozen.",
        )
        require(bottleneck >= 0, f"strategy.bottleneck={bottleneck}: it must not be negative.")
        self.objective = Classification(classes)
        self.backbone_factor, self.bottleneck = backbone_factor, bottleneck

    def setup(self, model: Model, stream: StreamInfo) -> None:
        if self.bottleneck:
            inject_adapters(model.backbone, self.bottleneck)
            reset_adapters(model, self.generator("adapter"))

    def parameter_groups(self) -> list[ParameterGroup]:
        return backbone_and_head(self.run.model, self.backbone_factor)
