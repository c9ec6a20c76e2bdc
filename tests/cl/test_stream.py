"""Splitting into experiences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cl.data import ArrayDataset
from cl.data.computed import Lazy
from cl.errors import ConfigurationError, DataError
from cl.stream import Stream, class_incremental, shuffled_classes, stratified_split
from tests.conftest import toy_images, toy_stream


def test_experiences_partition_the_data() -> None:
    stream = toy_stream(tasks=3, classes=7, images=70)
    rows = np.concatenate([data.rows for data in stream.train])
    assert sorted(rows) == list(range(70))
    classes = [stream.experience(i).classes for i in range(3)]
    assert classes == [(0, 1, 2), (3, 4), (5, 6)], "the first ones get one class more"


def test_an_experience_names_only_what_has_arrived() -> None:
    experience = toy_stream(tasks=2).experience(0)
    assert experience.seen == 2
    assert experience.names == ("class 0", "class 1")
    assert experience.new_classes == (0, 1)
    assert experience.task is None, "no task label in a class-incremental stream"


def test_labels_number_the_classes_in_order_of_arrival() -> None:
    data = toy_images(12, 4, 0)
    stream = class_incremental("toy", data, data, ["a", "b", "c", "d"], 2, [2, 0, 3, 1])
    assert stream.class_names == ("c", "a", "d", "b")
    first = stream.train[0]
    assert set(first.targets) == {0, 1}
    assert set(data.labels[first.rows]) == {2, 0}
    assert list(data.labels[:4]) == [0, 1, 2, 3], "the data set itself is left as it was"


def test_seed_1993_gives_the_order_of_the_field() -> None:
    order = shuffled_classes(100, 1993)
    assert order[:20] == [
        68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89, 3, 92, 55, 9, 26, 80, 43, 38
    ]  # fmt: skip
    assert shuffled_classes(4, None) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("tasks", "message"), [(0, "at least 1"), (-2, "at least 1"), (5, "4 classes, so at most 4")]
)
def test_impossible_numbers_of_tasks(tasks: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        toy_stream(tasks=tasks)


def test_an_order_must_name_each_class_once() -> None:
    data = toy_images(12, 4, 0)
    with pytest.raises(ConfigurationError, match=r"each of the 4 classes 0 … 3 once"):
        class_incremental("toy", data, data, ["a", "b", "c", "d"], 2, [0, 1, 2, 2])


def test_a_class_without_test_images_is_named() -> None:
    train, test = toy_images(12, 4, 0), toy_images(12, 4, 1)
    without = ArrayDataset(test.images, test.labels, np.flatnonzero(test.labels != 3))
    with pytest.raises(DataError, match=r"toy: no test images of d"):
        class_incremental("toy", train, without, ["a", "b", "c", "d"], 2, range(4))


def test_stratified_split_is_fixed_and_disjoint() -> None:
    labels = np.repeat(np.arange(3), [10, 20, 5])
    train, test = stratified_split(labels, 0.2, seed=0)
    assert not set(train) & set(test)
    assert sorted([*train, *test]) == list(range(35))
    assert list(np.bincount(labels[test])) == [2, 4, 1]
    assert np.array_equal(test, stratified_split(labels, 0.2, seed=0)[1])


def test_fingerprint_tells_splits_apart() -> None:
    assert toy_stream().fingerprint() == toy_stream().fingerprint()
    assert toy_stream().fingerprint() != toy_stream(tasks=4).fingerprint()


def test_a_split_is_stored_and_compared(tmp_path: Path) -> None:
    stream = toy_stream(tasks=2)
    file = tmp_path / "split.npz"
    stream.save_split(file)
    with np.load(file) as stored:
        assert str(stored["fingerprint"]) == stream.fingerprint()
        assert list(stored["train_lengths"]) == [24, 24]
        second = stored["train_rows"][24:]
        assert np.array_equal(second, stream.train[1].rows)
        assert np.array_equal(stored["train_labels"][24:], stream.train[1].targets)
    toy_stream(tasks=2).save_split(file)
    with pytest.raises(DataError, match="the run began with other images"):
        toy_stream(tasks=4).save_split(file)


def test_experiences_of_a_long_stream_cost_the_same() -> None:
    """Each names the classes seen, but none looks at the experiences before it."""
    asked: list[int] = []

    def make(index: int) -> ArrayDataset:
        asked.append(index)
        return ArrayDataset.of(np.zeros((1, 1, 1, 3), np.uint8), np.array([index]))

    count = 1000
    sets = Lazy(count, make)
    names = Lazy(count, str)
    stream = Stream("long", "class-incremental", sets, sets, names, seen=range(1, count + 1))
    assert not asked
    experience = stream.experience(999)
    assert asked == [999]
    assert experience.new_classes == (999,)
    assert experience.seen == 1000


def test_what_a_stream_must_be() -> None:
    one, two = toy_images(12, 4, 0), toy_images(12, 4, 1)
    with pytest.raises(ConfigurationError, match="as many test as training sets"):
        Stream("s", "class-incremental", (one,), (two, two), tuple("abcd"))
    with pytest.raises(ConfigurationError, match="scenario backwards is not known"):
        Stream("s", "backwards", (one,), (two,), tuple("abcd"))
    later = one.subset(np.flatnonzero(one.labels >= 2))
    with pytest.raises(DataError, match="task 0: labels must follow the order of arrival"):
        Stream("s", "class-incremental", (later, one), (two, two), tuple("abcd"))
    with pytest.raises(DataError, match="task 0: there are no training images"):
        Stream("s", "class-incremental", (one.subset(np.arange(0)),), (two,), tuple("abcd"))
    with pytest.raises(DataError, match="task 0: no test images of d"):
        Stream("s", "class-incremental", (one,), (two.subset(np.arange(3)),), tuple("abcd"))
