"""Several data sets after one another, and the synthetic stream of any length."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cl.data.datasets import DataSet
from cl.errors import ConfigurationError
from streams.classes import class_incremental, label_noise
from streams.sequences import resized, sequence, synthetic
from tests.conftest import toy_images


def test_each_data_set_brings_its_classes() -> None:
    toy = DataSet("toy", toy_images(12, 3, 0), toy_images(6, 3, 1), ("a", "b", "c"))
    stream = sequence([toy, "digits"])
    assert stream.class_names[:4] == ("toy: a", "toy: b", "toy: c", "digits: 0")
    assert stream.experience(1).new_classes == tuple(range(3, 13))
    assert [part.images.shape[1:] for part in stream.train] == [(8, 8, 3), (8, 8, 3)]
    grey = stream.train[1].take(np.arange(4))[0]
    assert np.array_equal(grey[..., 0], grey[..., 2]), "a grey image became a colour image"
    assert np.array_equal(stream.train[0].take(np.arange(4))[0], toy.train.images[:4])


def test_images_of_different_sizes_come_to_one() -> None:
    toy = DataSet("toy", toy_images(12, 3, 0), toy_images(6, 3, 1), ("a", "b", "c"))
    stream = sequence([toy, "digits"], image_size=16)
    assert all(part.take(np.arange(2))[0].shape == (2, 16, 16, 3) for part in stream.train)
    flat = np.full((2, 8, 8, 1), 77, np.uint8)
    assert (resized(flat, np.arange(2), 16) == 77).all()


def test_sequence_bad_input() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        sequence([])
    with pytest.raises(ConfigurationError, match="Did you mean digits"):
        sequence(["digit"])
    with pytest.raises(ConfigurationError, match="class-incremental or task-incremental"):
        sequence(["digits"], scenario="domain-incremental")  # type: ignore[arg-type]


def test_synthetic_classes_can_be_told_apart() -> None:
    stream = synthetic(experiences=3, noise=10.0)
    train, test = stream.train[1], stream.test[1]
    images, labels = train.take(np.arange(len(train)))
    means = {c: images[labels == c].mean(0) for c in set(labels)}
    for image, label in zip(*test.take(np.arange(len(test))), strict=True):
        assert min(means, key=lambda c: float(((means[c] - image) ** 2).sum())) == label
    assert not np.array_equal(images[:2], test.take(np.arange(2))[0])


def test_synthetic_domains_drift() -> None:
    stream = synthetic(experiences=21, new_classes=0, noise=0.0)
    first, second, far = (stream.train[i].take(np.array([0]))[0].astype(float) for i in (0, 1, 20))
    assert 0 < np.abs(first - second).mean() < 5 < np.abs(first - far).mean()
    assert len(stream.class_names) == 2
    assert stream.scenario == "domain-incremental"


def memory_and_seconds(experiences: int) -> tuple[int, float]:
    tracemalloc.start()
    start = time.perf_counter()
    stream = synthetic(experiences=experiences)
    for index in range(0, experiences, max(1, experiences // 20)):
        experience = stream.experience(index)
        experience.train.take(np.arange(len(experience.train)))
        del experience
    seconds = time.perf_counter() - start
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return kept, seconds


def test_memory_does_not_grow_with_the_experiences() -> None:
    memory_and_seconds(10)  # imports
    small, _ = memory_and_seconds(1000)
    large, seconds = memory_and_seconds(20000)
    assert large < small + 50_000, "bytes"
    assert seconds < 5


def test_a_thousand_experiences_start_at_once() -> None:
    start = time.perf_counter()
    stream = synthetic(experiences=1000)
    assert len(stream) == 1000
    assert sum(len(data) for data in stream.train) == 40000
    assert stream.experience(999).seen == 2000
    assert stream.fingerprint() != synthetic(experiences=1000, seed=1).fingerprint()
    assert time.perf_counter() - start < 5


def peak_of_saving(experiences: int, file: Path) -> int:
    stream = synthetic(experiences=experiences, images=5, test_images=2)
    tracemalloc.start()
    stream.save_split(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with np.load(file) as stored:
        assert stored["train_lengths"].sum() == len(stored["train_rows"]) == 10 * experiences
    return peak


def test_the_split_is_written_piece_by_piece(tmp_path: Path) -> None:
    small, large = (peak_of_saving(count, tmp_path / f"{count}.npz") for count in (100, 2000))
    assert large < small + 20_000, "bytes; all rows and labels of 2,000 are 450,000"


def test_a_thousand_experiences_of_stored_images_share_them() -> None:
    """Every scenario that cuts a data set up: in seconds, and with no copy of the labels for each."""
    labels = np.arange(20000, dtype=np.int64) % 2000
    images = np.zeros((20000, 1, 1, 3), np.uint8)
    data = DataSet.of(images, labels, images[:4000], labels[:4000])
    start = time.process_time()
    for stream in (class_incremental(data, 1000), label_noise(data, 1000, 0.3)):
        assert len(stream) == 1000
        assert len({id(part.labels) for part in stream.train}) == 1
        assert all(part.images is images for part in stream.train)
        stream.fingerprint()
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "arguments", [{"experiences": 0}, {"images": 0}, {"noise": -1.0}, {"new_classes": -1}]
)
def test_impossible_synthetic(arguments: dict) -> None:
    with pytest.raises(ConfigurationError, match="must"):
        synthetic(**arguments)
