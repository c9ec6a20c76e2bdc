"""Scikit-learn's handwritten digits: 1,797 real images of 8 × 8 pixels that come with the package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits

from cl.data import ArrayDataset
from cl.stream import Stream, class_incremental, shuffled_classes, stratified_split


def split_digits(
    tasks: int = 5,
    order_seed: int | None = None,
    class_order: Sequence[int] | None = None,
) -> Stream:
    """The ten digits in `tasks` class-incremental tasks; a fifth of each class is the test set.

    order_seed: shuffles the classes; null keeps 0 … 9. class_order: the order itself. The images
    are enlarged to the backbone's input when a batch is made. No augmentation: a mirrored digit is
    another sign. Source: Alpaydin and Kaynak (1998), UCI optical recognition of handwritten digits.
    """
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    train, test = stratified_split(labels, test_share=0.2, seed=0)
    return class_incremental(
        "split_digits",
        ArrayDataset(grey, labels, train),
        ArrayDataset(grey, labels, test),
        [str(digit) for digit in range(10)],
        tasks,
        class_order or shuffled_classes(10, order_seed),
    )
