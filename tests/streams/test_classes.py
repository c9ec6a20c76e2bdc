"""Streams of disjoint classes: partition, order and counts on any data set, and worked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cl.data.datasets import DataSet
from cl.errors import ConfigurationError, DataError
from streams.classes import (
    class_incremental,
    few_shot,
    label_noise,
    long_tailed,
    tail_counts,
    task_incremental,
)

few_examples = settings(max_examples=40, deadline=None)


def data(counts: list[int], test: int = 2) -> DataSet:
    """A data set whose classes have so many training images; an image shows its own row."""

    def part(each: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(len(each)), each)
        np.random.default_rng(seed).shuffle(labels)
        rows = np.arange(len(labels))
        images = np.stack([rows % 256, rows // 256, np.full_like(rows, seed)], 1)
        return images.astype(np.uint8).reshape(-1, 1, 1, 3), labels

    return DataSet.of(*part(counts, 0), *part([test] * len(counts), 1), name="made")


@st.composite
def splits(draw: st.DrawFn) -> tuple[DataSet, int, int]:
    """A data set, a number of tasks that fits, and a seed."""
    counts = draw(st.lists(st.integers(2, 12), min_size=2, max_size=12))
    return data(counts), draw(st.integers(1, len(counts))), draw(st.integers(0, 2**32 - 1))


@few_examples
@given(splits())
def test_experiences_partition_images_and_classes(case: tuple[DataSet, int, int]) -> None:
    source, tasks, seed = case
    stream = class_incremental(source, tasks, order_seed=seed)
    rows = np.concatenate([part.rows for part in stream.train])
    assert sorted(rows) == list(range(len(source.train)))
    assert sorted(np.concatenate([part.rows for part in stream.test])) == list(
        range(len(source.test))
    )
    order = np.random.RandomState(seed).permutation(source.classes)
    assert stream.class_names == tuple(source.class_names[c] for c in order)
    for part in stream.train:
        assert np.array_equal(order[part.targets], source.train.labels[part.rows])
    assert class_incremental(source, tasks, order_seed=seed).fingerprint() == stream.fingerprint()


def test_b50_inc10() -> None:
    stream = class_incremental(data([2] * 100), tasks=6, base=50, order_seed=1993)
    assert [len(stream.experience(i).new_classes) for i in range(6)] == [50, 10, 10, 10, 10, 10]
    assert stream.class_names[:3] == ("68", "56", "78")


def test_unequal_sizes_in_a_given_order() -> None:
    stream = class_incremental(data([2] * 6), sizes=[3, 1, 2], class_order=[5, 0, 4, 1, 3, 2])
    assert [stream.experience(i).classes for i in range(3)] == [(0, 1, 2), (3,), (4, 5)]
    assert stream.class_names == tuple("504132")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [3, 1]}, r"stream.sizes=\[3, 1\]: each at least 1, and 6 together"),
        ({"sizes": [6, 0]}, "each at least 1"),
        ({"base": 0, "tasks": 2}, r"stream.base=0: .* 1 … 5"),
        ({"base": 5, "tasks": 3}, r"1 … 4"),
        ({"base": 6, "tasks": 1}, "stream.base=6"),
        ({"tasks": 7}, "6 classes, so at most 6 tasks"),
        ({"class_order": [0, 0, 1, 2, 3, 4]}, "each of the 6 classes 0 … 5 once"),
    ],
)
def test_impossible_tasks(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        class_incremental(data([2] * 6), **arguments)


def test_task_incremental_tells_the_task() -> None:
    stream = task_incremental(data([3] * 6), tasks=3)
    assert [stream.experience(i).task for i in range(3)] == [0, 1, 2]
    assert stream.info.scenario == "task-incremental"


def test_few_shot_of_the_paper() -> None:
    """CIFAR-100 of Tao et al. (2020): 60 base classes, then eight times 5 classes with 5 images."""
    stream = few_shot(data([20] * 100), base=60, ways=5, shots=5)
    assert len(stream) == 9
    assert [len(part) for part in stream.train] == [1200] + [25] * 8
    for index in range(1, 9):
        counts = np.bincount(stream.train[index].targets)
        assert list(counts[counts > 0]) == [5] * 5
        assert len(stream.test[index]) == 10, "all test images"
    again = few_shot(data([20] * 100), base=60, ways=5, shots=5)
    other = few_shot(data([20] * 100), base=60, ways=5, shots=5, seed=1)
    assert again.fingerprint() == stream.fingerprint() != other.fingerprint()


def test_more_shots_than_images_names_the_class() -> None:
    with pytest.raises(DataError, match=r"stream.shots=5: 4 of made has only 3 training images"):
        few_shot(data([9, 9, 9, 9, 3, 9]), base=2, ways=2, shots=5)


@pytest.mark.parametrize(("base", "ways"), [(5, 2), (0, 2), (7, 1), (2, 0)])
def test_few_shot_classes_must_divide(base: int, ways: int) -> None:
    with pytest.raises(ConfigurationError, match="divide by ways"):
        few_shot(data([9] * 6), base=base, ways=ways, shots=5)


def test_tail_of_cui_et_al() -> None:
    """CIFAR-100-LT with imbalance 100: 500 images for the first class, 5 for the last, 10,847 in all."""
    counts = tail_counts(500, 100, 100)
    assert (counts[0], counts[1], counts[-1]) == (500, 477, 5)
    assert sum(counts) == 10847
    assert sum(tail_counts(5000, 10, 100)) == 12406, "CIFAR-10-LT"
    assert tail_counts(50, 3, 25) == [50, 10, 2]
    assert tail_counts(3, 4, 100) == [3, 1, 1, 1], "never none"


@few_examples
@given(splits(), st.floats(1, 50), st.sampled_from(["ordered", "shuffled"]))
def test_long_tail_has_exactly_these_counts(
    case: tuple[DataSet, int, int], imbalance: float, arrival: str
) -> None:
    source, tasks, seed = case
    stream = long_tailed(source, tasks, imbalance, arrival, seed, order_seed=seed)
    kept = np.concatenate([part.targets for part in stream.train])
    counts = list(np.bincount(kept, minlength=source.classes))
    smallest = int(np.bincount(source.train.targets).min())
    wanted = tail_counts(smallest, source.classes, imbalance)
    if arrival == "ordered":
        assert counts == wanted, "from head to tail in order of arrival"
    assert sorted(counts, reverse=True) == wanted
    assert sum(len(part) for part in stream.test) == len(source.test), "the test set stays"


@few_examples
@given(splits(), st.floats(0, 0.99), st.sampled_from(["symmetric", "asymmetric"]))
def test_label_noise_is_exact_and_stays_in_the_task(
    case: tuple[DataSet, int, int], rate: float, kind: str
) -> None:
    source, tasks, seed = case
    tasks = min(tasks, source.classes // 2)
    try:
        noisy = label_noise(source, tasks, rate, kind, seed)
    except DataError:
        return  # so few images that a class has lost all of its labels
    clean = class_incremental(source, tasks)
    for index, (got, right) in enumerate(zip(noisy.train, clean.train, strict=True)):
        assert np.array_equal(got.rows, right.rows)
        for label in clean.experience(index).classes:
            wrong = got.targets[right.targets == label]
            assert (wrong != label).sum() == round(rate * len(wrong))
            assert set(wrong) <= set(clean.experience(index).classes)
            assert kind == "symmetric" or len(set(wrong) - {label}) <= 1
    assert all(
        np.array_equal(got.targets, right.targets)
        for got, right in zip(noisy.test, clean.test, strict=True)
    )


def test_asymmetric_noise_goes_to_the_next_class() -> None:
    source = data([10] * 4)
    noisy, clean = label_noise(source, 2, 0.3, "asymmetric"), class_incremental(source, 2)
    pairs = set(zip(clean.train[1].targets, noisy.train[1].targets, strict=True))
    assert pairs == {(2, 2), (2, 3), (3, 3), (3, 2)}


def test_symmetric_noise_spreads_over_the_other_classes() -> None:
    source = data([3000] * 4)
    noisy, clean = label_noise(source, 1, 0.6), class_incremental(source, 1)
    flipped = noisy.train[0].targets[clean.train[0].targets == 0]
    counts = np.bincount(flipped, minlength=4)
    assert counts[0] == 1200
    assert abs(counts[1:] - 600).max() < 5 * np.sqrt(600), "about equal"


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_noise(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="must be in"):
        label_noise(data([5] * 4), 2, rate)


def test_noise_needs_two_classes_in_a_task() -> None:
    with pytest.raises(ConfigurationError, match="at least two classes in every task"):
        label_noise(data([5] * 4), 3, 0.2)


def test_the_same_split_on_every_machine() -> None:
    """numpy promises that RandomState never changes; these were computed once."""
    made = {
        "few_shot": few_shot("digits").fingerprint(),
        "long_tailed": long_tailed("digits", arrival="shuffled").fingerprint(),
        "label_noise": label_noise("digits").fingerprint(),
        "order": class_incremental("digits", order_seed=1993).fingerprint(),
    }
    assert made == {
        "few_shot": "8621a34e1dfde8f2",
        "long_tailed": "b04a1b799652b84c",
        "label_noise": "b9213cdbb728286d",
        "order": "bab50b2b14eaec8b",
    }
