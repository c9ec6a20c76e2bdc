"""What every stream must satisfy that needs no download."""

from __future__ import annotations

import numpy as np
import pytest

from cl.stream import Stream
from streams.digits import split_digits
from tests.conftest import toy_stream


@pytest.fixture(params=["toy", "split_digits"])
def stream(request: pytest.FixtureRequest) -> Stream:
    return toy_stream() if request.param == "toy" else split_digits()


def test_experiences_follow_each_other(stream: Stream) -> None:
    seen = 0
    for index in range(len(stream)):
        experience = stream.experience(index)
        assert experience.index == index
        assert set(experience.train.targets) == set(experience.classes)
        assert set(experience.new_classes) <= set(experience.classes)
        seen += len(experience.new_classes)
        assert experience.seen == seen
        assert max(experience.classes) < seen, "labels number the classes in order of arrival"
    assert seen == len(stream.class_names)


def test_no_image_is_in_training_and_test(stream: Stream) -> None:
    def digests(parts: tuple) -> set[bytes]:
        return {image.tobytes() for data in parts for image in data.take(np.arange(len(data)))[0]}

    assert not digests(stream.train) & digests(stream.test)


def test_test_sets_hold_the_classes_of_their_task(stream: Stream) -> None:
    for train, test in zip(stream.train, stream.test, strict=True):
        assert set(train.targets) == set(test.targets)
