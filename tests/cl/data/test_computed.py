"""Images and sequences that are computed when they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from cl.data import ArrayDataset
from cl.data.computed import Lazy, computed, key_of, mapped, mapped_to


def test_a_lazy_sequence_is_a_sequence() -> None:
    squares = Lazy(5, lambda i: i * i)
    assert list(squares) == [0, 1, 4, 9, 16]
    assert squares[-1] == 16
    assert list(squares[1:4:2]) == [1, 9]
    assert len(squares) == 5
    for index in (5, -6):
        with pytest.raises(IndexError):
            squares[index]


def test_computed_images_are_indexed_like_an_array() -> None:
    stored = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
    asked: list[int] = []

    def make(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows)
        return stored[rows]

    images = computed(stored.shape, make, "stored")
    assert not asked, "nothing is computed before it is read"
    assert np.array_equal(images[np.array([3, 1])], stored[[3, 1]])
    assert np.array_equal(images[2], stored[2])
    assert np.array_equal(images[1:3], stored[1:3])
    assert np.array_equal(np.asarray(images), stored)
    data = ArrayDataset.of(images, np.arange(5))
    assert np.array_equal(data.subset(np.array([4, 0])).take(np.array([0]))[0], stored[[4]])
    with pytest.raises(IndexError):
        images[np.array([5])]


def test_changes_follow_each_other_and_are_told_apart() -> None:
    stored = np.full((4, 2, 2, 1), 10, np.uint8)
    plus = mapped(
        stored, lambda images, rows: images + rows[:, None, None, None].astype(np.uint8), "plus"
    )
    twice = mapped(plus, lambda images, rows: 2 * images, "twice")
    assert list(twice[np.array([0, 3])][:, 0, 0, 0]) == [20, 26]
    assert (key_of(stored), key_of(plus), key_of(twice)) == ("", "plus", "plus/twice")
    colour = mapped_to((2, 2, 3), stored, lambda images, rows: images.repeat(3, axis=3), "colour")
    assert colour.shape == (4, 2, 2, 3)
    assert colour[np.array([1])].shape == (1, 2, 2, 3)
