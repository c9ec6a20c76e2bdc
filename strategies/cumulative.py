"""Cumulative training: every image ever seen is kept, and training goes on over all of them."""

from __future__ import annotations

from cl.data import ArrayDataset
from cl.data.archive import Archive
from cl.strategy import Strategy
from cl.stream import Experience


class Cumulative(Strategy):
    """Cumulative fine-tuning (a reference, no paper of its own): an upper reference, not a strict bound.

    After experience t the data are D_1 ∪ … ∪ D_t, and the present weights are trained on all of them with
    cross-entropy over all classes seen. An epoch is a pass over everything, so the cost of a stream
    grows with the square of its length. Stored: a copy of every training image.
    """

    cost = "all data seen, in each experience"
    rehearsal = True
    grows = "memory"
    loss_classes = "seen"

    def __init__(self) -> None:
        super().__init__()
        self.archive = Archive()

    def before_experience(self, experience: Experience) -> None:
        self.archive.add(experience.train)
        self.grow_head(experience)

    def training_data(self, experience: Experience) -> ArrayDataset:
        return self.archive.dataset()
