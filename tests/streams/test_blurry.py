"""Streams whose classes come back: every image once, and the shares that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl.data.datasets import DataSet
from cl.errors import ConfigurationError, DataError
from cl.stream import Stream
from streams.blurry import repetition, si_blurry, task_free
from tests.streams.test_classes import data, few_examples, splits


def assert_every_image_once(stream: Stream, source: DataSet) -> None:
    rows = np.concatenate([part.rows for part in stream.train])
    assert sorted(rows) == list(range(len(source.train)))
    original = np.array([int(name) for name in stream.class_names])
    for train, test in zip(stream.train, stream.test, strict=True):
        assert np.array_equal(original[train.targets], source.train.labels[train.rows])
        wanted = np.isin(source.test.labels, original[np.unique(train.targets)])
        assert np.array_equal(np.sort(test.rows), np.flatnonzero(wanted))


def tasks_of_classes(stream: Stream) -> list[set[int]]:
    """In which tasks each class occurs."""
    found: list[set[int]] = [set() for _ in stream.class_names]
    for index, part in enumerate(stream.train):
        for label in np.unique(part.targets):
            found[label].add(index)
    return found


@few_examples
@given(splits(), st.floats(0, 100), st.floats(0, 100), st.sampled_from(["equal", "random"]))
def test_si_blurry_partitions(
    case: tuple[DataSet, int, int], disjoint: float, blurry: float, sizes: str
) -> None:
    source, tasks, seed = case
    try:
        stream = si_blurry(source, tasks, disjoint, blurry, sizes, seed)
    except DataError:
        assert disjoint < 100
        assert blurry > 50, "a task lost all its images, and too few came back"
        return
    assert_every_image_once(stream, source)
    alone = [classes for classes in tasks_of_classes(stream) if len(classes) == 1]
    assert len(alone) >= int(source.classes * disjoint / 100)
    again = si_blurry(source, tasks, disjoint, blurry, sizes, seed)
    assert again.fingerprint() == stream.fingerprint()


def test_si_blurry_of_the_paper() -> None:
    """Worked numbers: 100 classes of 50 images, five tasks, N = 50, M = 10.

    A task has 10 disjoint classes (500 images) and 10 blurry ones (500, of which 50 leave and 50 come).
    """
    source = data([50] * 100)
    stream = si_blurry(source, 5, disjoint=50, blurry=10)
    assert [len(part) for part in stream.train] == [1000] * 5
    spread = tasks_of_classes(stream)
    counts = np.stack([np.bincount(part.targets, minlength=100) for part in stream.train])
    assert sum(len(tasks) == 1 and counts[:, c].max() == 50 for c, tasks in enumerate(spread)) >= 50
    home = counts.max(0)
    disjoint = np.sort(np.argsort(-home, kind="stable")[:50])
    assert (home[disjoint] == 50).all()
    others = np.setdiff1d(np.arange(100), disjoint)
    # 250 images were mixed over five tasks; about a fifth of them came back to where they were.
    strangers = counts[:, others].sum() - home[others].sum()
    assert 160 <= strangers <= 240
    assert np.allclose(np.bincount(counts[:, disjoint].argmax(0)), 10)


@pytest.mark.parametrize("share", [0, 100])
def test_si_blurry_without_blur_or_without_disjoint_classes(share: int) -> None:
    clean = si_blurry(data([6] * 10), 5, disjoint=share, blurry=0)
    assert all(len(tasks) == 1 for tasks in tasks_of_classes(clean))
    assert [len(part) for part in clean.train] == [12] * 5
    all_disjoint = si_blurry(data([6] * 10), 5, disjoint=100, blurry=100)
    assert all(len(tasks) == 1 for tasks in tasks_of_classes(all_disjoint))


def test_si_blurry_with_random_sizes_differs_from_task_to_task() -> None:
    stream = si_blurry(data([6] * 50), 5, disjoint=100, blurry=0, sizes="random")
    sizes = [len(set(part.targets)) for part in stream.train]
    assert sum(sizes) == 50
    assert len(set(sizes)) > 1
    assert min(sizes) >= 1


@few_examples
@given(splits(), st.floats(0, 1))
def test_repetition_partitions(case: tuple[DataSet, int, int], repeat: float) -> None:
    source, tasks, seed = case
    try:
        stream = repetition(source, tasks, repeat, seed, order_seed=seed)
    except DataError:
        assert np.bincount(source.train.targets).min() < tasks, "too few for all appearances"
        return
    assert_every_image_once(stream, source)
    counts = np.stack([np.bincount(p.targets, minlength=source.classes) for p in stream.train])
    for images in counts.T:
        assert np.ptp(images[images > 0]) <= 1, "shared out evenly"


def test_repetition_at_its_ends() -> None:
    source = data([12] * 6)
    never = repetition(source, 3, repeat=0.0)
    assert [len(tasks) for tasks in tasks_of_classes(never)] == [1] * 6
    always = repetition(source, 3, repeat=1.0)
    assert tasks_of_classes(always) == [{0, 1, 2}] * 2 + [{1, 2}] * 2 + [{2}] * 2
    with pytest.raises(DataError, match="2 training images for 3 appearances"):
        repetition(data([2] * 6), 3, repeat=1.0)


@few_examples
@given(splits(), st.floats(0, 5))
def test_task_free_partitions_into_equal_chunks(
    case: tuple[DataSet, int, int], width: float
) -> None:
    source, chunks, seed = case
    stream = task_free(source, chunks, width, seed, order_seed=seed)
    assert_every_image_once(stream, source)
    sizes = [len(part) for part in stream.train]
    assert max(sizes) - min(sizes) <= 1


def test_task_free_fades_from_class_to_class() -> None:
    source = data([100] * 5)
    hard = task_free(source, 5, width=0.0)
    assert [set(part.targets) for part in hard.train] == [{0}, {1}, {2}, {3}, {4}]
    soft = task_free(source, 25, width=0.5)
    assert len(soft) == 25
    assert any(len(set(part.targets)) > 1 for part in soft.train)
    mean = [np.mean([int(soft.class_names[c]) for c in part.targets]) for part in soft.train]
    assert np.corrcoef(mean, np.arange(25))[0, 1] > 0.98


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (si_blurry, {"disjoint": 101}, "per cent"),
        (si_blurry, {"blurry": -1}, "per cent"),
        (si_blurry, {"tasks": 7}, "6 classes"),
        (si_blurry, {"sizes": "some"}, "equal or random"),
        (repetition, {"repeat": 1.5}, "must be in"),
        (task_free, {"width": -1}, "not be negative"),
        (task_free, {"chunks": 0}, "training images"),
    ],
)
def test_impossible_arguments(function, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        function(data([3] * 6), **arguments)


def test_the_same_split_on_every_machine() -> None:
    """numpy promises that RandomState never changes; these were computed once."""
    made = {
        "si_blurry": si_blurry("digits").fingerprint(),
        "random": si_blurry("digits", sizes="random").fingerprint(),
        "repetition": repetition("digits").fingerprint(),
        "task_free": task_free("digits").fingerprint(),
    }
    assert made == {
        "si_blurry": "de2b06d1b86ab427",
        "random": "52cbd0e0589db30b",
        "repetition": "715a8863b5dd0e28",
        "task_free": "ae20d4a4b511a23a",
    }
