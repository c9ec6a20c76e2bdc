"""Images whose labels are not shown: what a method that adapts at test time learns from."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from cl.data.arrays import Array, ArrayDataset
from cl.errors import DataError


class Unlabelled(ArrayDataset):
    """Images without labels. Whoever asks for a label gets a DataError; `pixels_at` gives the images,
    and so does a batch.

    There is nothing to find either: the labels that it holds are all −1.
    """

    @classmethod
    def hide(cls, data: ArrayDataset) -> Unlabelled:
        """The same images; the labels stay behind."""
        return cls(data.images, np.full(len(data.images), -1, dtype=np.int64), data.rows)

    @property
    def targets(self) -> Array:
        """There are none."""
        self._refuse()

    def take(self, positions: Array) -> tuple[Array, Array]:
        """There are no labels to take."""
        self._refuse()

    def labels_at(self, positions: Array) -> Array:
        """There are none."""
        self._refuse()

    def subset(self, positions: Array) -> Unlabelled:
        """The rows at `positions`; they have no labels either."""
        return Unlabelled(self.images, self.labels, self.rows[positions])

    def _refuse(self) -> NoReturn:
        raise DataError(
            "The images of this experience have no labels, and the strategy (or a plugin) learns from "
            "labels. stream=test_time is for methods that adapt without; stream=corrupted shows the labels."
        )
