"""Linear probe: the backbone is never touched, only the head learns."""

from __future__ import annotations

from typing import Literal

from cl.errors import require_one_of
from cl.models.model import Model
from cl.objective import Classification
from cl.strategy import Strategy
from cl.stream import StreamInfo


class Frozen(Strategy):
    """Sequential linear probe (a reference, no paper of its own): only a growing linear head learns.

    Whatever it forgets, the head forgets: it separates the classifier's forgetting from the
    representation's.

    classes: the cross-entropy is over the "current" experience's classes, which gives the rows of the
    others no gradient (weight decay still shrinks them), or over all "seen" ones.
    """

    cost = "less: features are computed once"

    def __init__(self, classes: Literal["current", "seen"] = "current") -> None:
        super().__init__()
        require_one_of("strategy.classes", classes, ("current", "seen"))
        self.objective = Classification(classes)

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.backbone.requires_grad_(False)
