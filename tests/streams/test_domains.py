"""Domains: rotations, permutations, folders of domains; and how such streams are evaluated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cl.data import ArrayDataset
from cl.data.corruptions import corrupt
from cl.data.datasets import DataSet
from cl.errors import ConfigurationError
from cl.experiment import Experiment
from streams.domains import corrupted, domain_incremental, permuted, rotate, rotated
from tests.conftest import Compose, toy_images


def small() -> DataSet:
    train, test = toy_images(40, 4, 0), toy_images(20, 4, 1)
    return DataSet("toy", train, test, tuple("abcd"))


def test_rotations_by_right_angles_are_exact() -> None:
    images = toy_images(6, 3, 0).images
    rows = np.arange(6)
    assert np.array_equal(rotate(images, rows, 0.0), images)
    for turns in (1, 2, 3):
        turned = rotate(images, rows, 90.0 * turns)[:, 1:-1, 1:-1]
        exact = np.rot90(images, turns, axes=(1, 2))[:, 1:-1, 1:-1]
        assert np.abs(turned.astype(int) - exact).max() <= 1


def test_a_rotation_by_45_degrees_leaves_the_corners_black() -> None:
    white = np.full((1, 9, 9, 1), 255, np.uint8)
    turned = rotate(white, np.arange(1), 45.0)[0, :, :, 0]
    assert turned[4, 4] == 255
    assert turned[0, 0] == turned[-1, -1] == turned[0, -1] == 0


def test_rotated_experiences() -> None:
    stream = rotated(small(), tasks=3, max_angle=90)
    assert len(stream) == 3
    assert stream.info.scenario == "domain-incremental"
    plain = small().train
    assert np.array_equal(stream.train[0].take(np.arange(5))[0], plain.images[:5])
    middle = stream.train[1].take(np.arange(5))[0]
    assert np.array_equal(middle, rotate(plain.images[:5], np.arange(5), 45.0))
    assert stream.experience(2).new_classes == ()
    assert stream.experience(2).classes == (0, 1, 2, 3)


def test_permutations_move_pixels_and_are_the_same_for_training_and_test() -> None:
    rows = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    pixels = ArrayDataset.of(np.repeat(rows, 2, axis=0), np.array([0, 1]))
    stream = permuted(DataSet("p", pixels, pixels, ("a", "b")), tasks=3, seed=5)
    first, second = stream.train[1].take(np.arange(2))[0]
    assert np.array_equal(first, second)
    assert sorted(first.ravel()) == list(range(64))
    assert not np.array_equal(first, pixels.images[0])
    assert np.array_equal(first, stream.test[1].take(np.arange(1))[0][0])
    assert not np.array_equal(first, stream.train[2].take(np.arange(1))[0][0])
    assert np.array_equal(stream.train[0].take(np.arange(1))[0], rows), "the first is as it was"
    assert np.array_equal(first.ravel(), np.random.RandomState(5).permutation(64))
    assert stream.augmentation == "none"


def test_the_fingerprint_knows_the_change() -> None:
    prints = {
        permuted(small(), 3, seed=0).fingerprint(),
        permuted(small(), 3, seed=1).fingerprint(),
        rotated(small(), 3, 90).fingerprint(),
        rotated(small(), 3, 180).fingerprint(),
    }
    assert len(prints) == 4


def with_domains() -> DataSet:
    """Two domains; the class "a" is not in the second one, "d" not in the first."""
    train = ArrayDataset.of(np.zeros((8, 2, 2, 3), np.uint8), np.array([0, 1, 2, 0, 1, 2, 3, 3]))
    test = ArrayDataset.of(np.zeros((6, 2, 2, 3), np.uint8), np.array([0, 1, 2, 1, 2, 3]))
    return DataSet(
        "d",
        train,
        test,
        tuple("abcd"),
        domain_names=("photo", "sketch"),
        train_domains=np.array([0, 0, 0, 0, 1, 1, 1, 1]),
        test_domains=np.array([0, 0, 0, 1, 1, 1]),
    )


def test_an_experience_per_domain_in_the_order_asked() -> None:
    stream = domain_incremental(with_domains(), domains=["sketch", "photo"])
    assert stream.class_names == ("b", "c", "d", "a")
    assert [list(part.rows) for part in stream.train] == [[4, 5, 6, 7], [0, 1, 2, 3]]
    assert [list(part.rows) for part in stream.test] == [[3, 4, 5], [0, 1, 2]]
    assert stream.experience(1).new_classes == (3,)
    assert len(domain_incremental(with_domains())) == 2


def test_unknown_domain_and_no_domains() -> None:
    with pytest.raises(ConfigurationError, match="quickdraw is none of photo, sketch"):
        domain_incremental(with_domains(), domains=["quickdraw"])
    with pytest.raises(ConfigurationError, match="it has no domains"):
        domain_incremental("digits")


def run(compose: Compose, *overrides: str) -> Experiment:
    cfg = compose("stream=custom", *overrides)
    experiment = Experiment(cfg, loggers=[])
    experiment.run()
    return experiment


def rotated_toy() -> object:
    return rotated(small(), tasks=3, max_angle=90)


def task_toy() -> object:
    from streams.classes import task_incremental

    return task_incremental(replace(small(), name="toy"), tasks=2)


def test_forward_transfer_is_defined_for_domains(compose: Compose) -> None:
    experiment = run(compose, "stream._target_=tests.streams.test_domains.rotated_toy")
    R = experiment.matrix.values()
    assert not np.isnan(R[0, 1])
    assert np.isnan(R[0, 2]), "one task ahead, no more"
    summary = experiment.summary()
    wanted = np.mean([R[0, 1] - 0.25, R[1, 2] - 0.25])
    assert summary["forward_transfer"] == pytest.approx(wanted)
    assert summary["average_accuracy"] == pytest.approx(R[-1].mean())


def test_task_incremental_answers_are_among_the_task_s_classes(compose: Compose) -> None:
    experiment = run(compose, "stream._target_=tests.streams.test_domains.task_toy")
    within = experiment.matrix.values(within_task=True)
    np.testing.assert_array_equal(experiment.matrix.values(), within)
    assert experiment.summary()["forward_transfer"] is None


def test_corrupted_experiences() -> None:
    stream = corrupted(small(), severity=3, corruptions=["fog", "contrast"])
    plain = small()
    assert len(stream) == 3
    assert np.array_equal(stream.train[0].take(np.arange(4))[0], plain.train.images[:4])
    assert np.array_equal(stream.test[0].take(np.arange(4))[0], plain.test.images[:4])
    wanted = corrupt(plain.train.images[3:5], np.array([3, 4]), "fog", 3, seed=0)
    assert np.array_equal(stream.train[1].take(np.array([3, 4]))[0], wanted)
    other = corrupt(plain.test.images[3:5], np.array([3, 4]), "fog", 3, seed=1)
    assert np.array_equal(stream.test[1].take(np.array([3, 4]))[0], other)
    assert len(corrupted("digits")) == 16
    assert corrupted("digits", seed=1).fingerprint() != corrupted("digits").fingerprint()
    with pytest.raises(ConfigurationError, match="Did you mean snow"):
        corrupted("digits", corruptions=["snwo"])
    with pytest.raises(ConfigurationError, match="severity=6"):
        corrupted("digits", severity=6)
