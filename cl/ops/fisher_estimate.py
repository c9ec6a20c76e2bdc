"""The choice of a Fisher information: which one, of how many images, at what scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cl.ops.fisher import LossOfLogits, check_fisher_options, fisher_information


@dataclass(frozen=True)
class FisherEstimate:
    """How the Fisher information of a task is taken; ConfigurationError if it cannot be.

    kind: one of `cl.ops.fisher.FISHERS`. normalise: one of `NORMALISATIONS`. samples: over how many
    images, None for all; whoever makes the batches sees to it.
    """

    kind: str
    normalise: str
    samples: int | None

    def __post_init__(self) -> None:
        check_fisher_options(self.kind, self.normalise, self.samples)

    def __call__(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor, Any]],
        cross_entropy: LossOfLogits,
        classes: Sequence[int],
    ) -> dict[str, Tensor]:
        """The Fisher information by parameter name. batches: images, labels, and what is not looked at.

        cross_entropy: of logits and labels, over `classes`.
        """
        pairs = ((images, labels) for images, labels, _ in batches)
        return fisher_information(
            self.kind,
            model,
            pairs,
            lambda logits, labels: -cross_entropy(logits, labels),
            classes,
            self.normalise,
        )
