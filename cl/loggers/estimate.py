"""How many steps a run will take in all, learnt from what its experiences took so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class StepEstimate:
    """Steps of a whole run.

    lengths: training images of each experience. planned: the steps if each experience trains on its own
    images. Some methods train in the first experience only, others on all images seen so far. So the
    steps of an experience are set against its own images and against those seen, and what is to come is
    reckoned from whichever of the two ratios has changed less, in proportion, since the experiences before.
    """

    def __init__(self, lengths: Sequence[int], planned: int) -> None:
        self.own = np.asarray(lengths, dtype=np.float64)
        self.seen = np.cumsum(self.own)
        self.total = planned

    def update(self, experience: int, steps: int, before: int) -> None:
        """An experience takes so many steps; all before it together took `before`."""
        now = [steps / base[experience] for base in (self.own, self.seen)]
        changes = [0.0, 0.0]
        if experience:
            earlier = [before / base[:experience].sum() for base in (self.own, self.seen)]
            changes = [abs(a - b) / max(a, b, 1e-9) for a, b in zip(now, earlier, strict=True)]
        kind = int(np.argmin(changes))
        rest = now[kind] * (self.own, self.seen)[kind][experience + 1 :].sum()
        self.total = before + steps + round(float(rest))
