"""An experience: what a learner sees of one task of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cl.data.arrays import Array, ArrayDataset, check_array
from cl.data.unlabelled import Unlabelled
from cl.errors import DataError
from cl.names import class_name


@dataclass(frozen=True)
class Experience:
    """What a learner sees of one task; nothing of the tasks before and after it.

    index: 0 for the first. train: the training data; its labels number the classes in their order of
    arrival; `Unlabelled` where the learner must do without. new_classes: labels that appear for the first
    time. classes: all labels of this experience. names: the names of the classes seen. task: the task label,
    only in task-incremental streams.
    """

    index: int
    train: ArrayDataset
    new_classes: tuple[int, ...]
    classes: tuple[int, ...]
    names: tuple[str, ...]
    task: int | None = None

    @classmethod
    def of(
        cls, images: Array, labels: Sequence[str] | Array, known: Sequence[str], index: int
    ) -> Experience:
        """Of images and as many labels: names, or whole numbers that stand for them.

        known: the classes so far. DataError for labels of another type, and if there is not one for each.
        """
        check_array(images, "learn(images, labels)")
        given = [class_name(label) for label in _in_order(labels)]
        if len(given) != len(images):
            raise DataError(f"{len(images)} images, but {len(given)} labels; give one for each.")
        if not given:
            raise DataError("learn(images, labels): there are no images.")
        names = tuple(dict.fromkeys((*known, *given)))
        number = {name: label for label, name in enumerate(names)}
        targets = np.array([number[name] for name in given], dtype=np.int64)
        return cls(
            index,
            ArrayDataset.of(images, targets),
            new_classes=tuple(range(len(known), len(names))),
            classes=tuple(int(label) for label in np.unique(targets)),
            names=names,
        )

    @property
    def seen(self) -> int:
        """How many classes have appeared so far."""
        return len(self.names)

    @property
    def labelled(self) -> bool:
        """Whether the training images have labels; if not, `classes` is empty."""
        return not isinstance(self.train, Unlabelled)


def _in_order(labels: object) -> Iterable[object]:
    """The labels one by one; a DataError for what has no order, or is a single one."""
    if isinstance(labels, Tensor):
        labels = labels.cpu().numpy()
    single = isinstance(labels, str | bytes) or not getattr(labels, "shape", True)
    if single or isinstance(labels, Set | Mapping) or not isinstance(labels, Iterable):
        raise DataError(
            f"learn(images, labels): labels must be in the order of the images, in an array or a list, "
            f"not {type(labels).__name__}."
        )
    return labels


@dataclass(frozen=True)
class StreamInfo:
    """What may be known of a stream beforehand: no images, and no class that is still to come."""

    name: str
    scenario: str
    experiences: int
