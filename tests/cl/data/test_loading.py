from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from cl.data import ArrayDataset, Order, Transform, batches
from cl.data.arrays import Array
from cl.data.computed import computed
from cl.data.loading import as_tensor
from cl.errors import DataError
from tests.conftest import toy_images

HALF = (0.5, 0.5, 0.5)
CPU = torch.device("cpu")


class Slow:
    """Images that are made on request; it notes which rows were asked for, and by which thread."""

    def __init__(self, data: ArrayDataset) -> None:
        self.images = data.images
        self.read = [threading.Event() for _ in range(len(data))]
        self.threads: list[str] = []
        self.dataset = ArrayDataset.of(computed(data.images.shape, self.make, "slow"), data.labels)

    def make(self, rows: Array) -> Array:
        self.threads.append(threading.current_thread().name)
        for row in rows:
            self.read[row].set()
        return np.asarray(self.images[rows])


def order() -> Order:
    return Order(torch.Generator().manual_seed(3))


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_the_next_batch_is_read_while_one_is_used(augmentation: str) -> None:
    slow = Slow(toy_images(12, 2, 0))
    walk = batches(
        slow.dataset, Transform(8, HALF, HALF), 4, CPU, order=order(), augmentation=augmentation
    )
    upcoming = [positions for positions, _ in order().batches(12, 4)]
    for number, batch in enumerate(walk):
        assert len(as_tensor(batch.images)) == 4, "somebody looks at the pixels"
        assert np.array_equal(batch.positions, upcoming[number])
        for row in upcoming[number + 1] if number < 2 else ():
            assert slow.read[row].wait(timeout=10), "nobody asked for it yet, but it is being read"
    assert slow.threads[0] == "MainThread"
    assert [name.startswith("read ahead") for name in slow.threads] == [False, True, True]


@pytest.mark.parametrize("shuffled", [True, False])
def test_reading_ahead_changes_no_image(shuffled: bool) -> None:
    data = toy_images(30, 2, 0)
    passes = [
        [
            (as_tensor(batch.images), batch.labels)
            for batch in batches(
                each,
                Transform(8, HALF, HALF),
                7,
                CPU,
                order=order() if shuffled else None,
                augmentation="crop_flip",
            )
        ]
        for each in (data, Slow(data).dataset)
    ]
    for (stored, labels), (read, same) in zip(*passes, strict=True):
        assert torch.equal(stored, read)
        assert torch.equal(labels, same)


def test_what_nobody_looks_at_is_not_read() -> None:
    slow = Slow(toy_images(12, 2, 0))
    assert len(list(batches(slow.dataset, Transform(8, HALF, HALF), 4, CPU))) == 3
    assert slow.threads == []


def test_stored_images_are_not_read_by_another_thread() -> None:
    walk = list(batches(toy_images(12, 2, 0), Transform(8, HALF, HALF), 4, CPU))
    as_tensor(walk[0].images)
    assert walk[0].images.following.reading is None  # type: ignore[attr-defined]


def test_an_image_that_cannot_be_read_stops_the_pass_where_it_is_used() -> None:
    data = toy_images(12, 2, 0)

    def make(rows: Array) -> Array:
        if 7 in rows:
            raise DataError("cat7.jpg cannot be decoded")
        return np.asarray(data.images[rows])

    damaged = ArrayDataset.of(computed(data.images.shape, make, "damaged"), data.labels)
    walk = batches(damaged, Transform(8, HALF, HALF), 4, CPU)
    as_tensor(next(walk).images)
    with pytest.raises(DataError, match=r"cat7\.jpg"):
        as_tensor(next(walk).images)
