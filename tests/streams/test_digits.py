from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from streams.datasets import arrays
from streams.digits import split_digits


@pytest.mark.parametrize("scikit_learn_has_moved_the_file", [False, True])
def test_they_are_those_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, scikit_learn_has_moved_the_file: bool
) -> None:
    if scikit_learn_has_moved_the_file:
        monkeypatch.setattr(arrays, "find_spec", lambda name: None)
    data, source = arrays.digits(), load_digits()
    grey = np.round(source.images * (255 / 16))
    np.testing.assert_array_equal(data.train.images[..., 0], grey)
    np.testing.assert_array_equal(data.train.labels, source.target)
    assert (data.train.images.dtype, data.train.labels.dtype) == (np.uint8, np.int64)


def test_real_digits_in_five_tasks() -> None:
    stream = split_digits()
    assert len(stream) == 5
    assert [stream.experience(i).names[-2:] for i in range(5)][1] == ("2", "3")
    assert sum(len(data) for data in stream.train) + sum(len(data) for data in stream.test) == 1797
    assert stream.train[0].images.shape == (1797, 8, 8, 1)
    assert stream.train[0].images.max() == 255


def test_the_test_split_is_fixed_stratified_and_disjoint() -> None:
    train = np.concatenate([data.rows for data in split_digits().train])
    test = np.concatenate([data.rows for data in split_digits().test])
    assert not set(train) & set(test)
    again = np.concatenate([data.rows for data in split_digits(order_seed=3).test])
    assert set(test) == set(again)
    counts = np.bincount(np.concatenate([data.targets for data in split_digits().test]))
    assert counts.min() >= 34
    assert counts.max() <= 37


def test_a_given_order() -> None:
    stream = split_digits(tasks=2, class_order=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert stream.class_names == tuple("9876543210")
