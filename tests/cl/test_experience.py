"""What may be given as images and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cl.errors import DataError
from cl.experience import Experience

IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([4, 5, 4]),
        [4, 5, 4],
        ("4", "5", "4"),
        torch.tensor([4, 5, 4]),
        (label for label in (4, 5, 4)),
    ],
)
def test_labels_in_the_order_of_the_images_are_taken(labels: Any) -> None:
    found = Experience.of(IMAGES, labels, ["7"], 1)
    assert found.names == ("7", "4", "5")
    assert found.train.targets.tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    "labels",
    [
        {0, 1, 2},
        frozenset((0, 1, 2)),
        dict.fromkeys(range(3)),
        {0: "a"}.keys(),
        "cat",
        b"cat",
        3,
        None,
        np.int64(3),
        np.array(3),
        torch.tensor(3),
    ],
)
def test_labels_without_order_are_refused(labels: Any) -> None:
    with pytest.raises(DataError, match="in the order of the images"):
        Experience.of(IMAGES, labels, [], 0)


@pytest.mark.parametrize("images", [None, 3, [IMAGES[0]] * 3, np.uint8(3), np.array(3, np.uint8)])
def test_images_that_are_no_array_are_refused(images: Any) -> None:
    with pytest.raises(DataError, match="must be an array"):
        Experience.of(images, [0, 1, 2], [], 0)


@pytest.mark.parametrize("shape", [(3, 0, 4, 3), (3, 4, 0, 1)])
def test_images_without_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="have no pixels"):
        Experience.of(np.zeros(shape, np.uint8), [0, 1, 2], [], 0)


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        Experience.of(IMAGES[:0], [], [], 0)
