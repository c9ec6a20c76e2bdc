"""Scikit-learn's handwritten digits: 1,797 real images of 8 × 8 pixels that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cl.stream import Stream
from streams.classes import class_incremental
from streams.datasets import load


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
    data = replace(load("digits"), name="split_digits")
    return class_incremental(data, tasks, order_seed=order_seed, class_order=class_order)
