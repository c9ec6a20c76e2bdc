"""Experiences without labels: what a learner gets has none, and a test-time method runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cl.data import ArrayDataset, index_batches
from cl.data.computed import Lazy
from cl.data.datasets import DataSet
from cl.data.unlabelled import Unlabelled
from cl.errors import DataError
from cl.experiment import Experiment
from cl.strategy import Strategy
from cl.stream import Experience, Stream
from cl.streams import draw
from streams.avalanche import to_avalanche
from streams.domains import at_test_time, corrupted
from tests.conftest import Compose, toy_images


def small() -> DataSet:
    return DataSet("toy", toy_images(48, 4, 0), toy_images(24, 4, 1), tuple("abcd"))


def adaptation() -> Stream:
    return at_test_time(small(), severity=3, corruptions=["fog", "contrast"])


def reachable(start: Any) -> Iterator[Any]:
    """Everything that hangs on an object: attributes, items, closures, arguments, bases of arrays."""
    waiting, known = [start], set()
    while waiting:
        found = waiting.pop()
        if id(found) in known or isinstance(found, type):
            continue
        known.add(id(found))
        yield found
        if isinstance(found, dict):
            waiting += [*found.keys(), *found.values()]
        elif isinstance(found, list | tuple | set):
            waiting += found
        elif isinstance(found, partial):
            waiting += [found.func, *found.args, *found.keywords.values()]
        elif isinstance(found, FunctionType):
            waiting += [cell.cell_contents for cell in found.__closure__ or ()]
        elif isinstance(found, np.ndarray):
            waiting.append(found.base)
        else:
            waiting += [getattr(found, "__self__", None), *getattr(found, "__dict__", {}).values()]


def test_the_labels_cannot_be_reached() -> None:
    stream = adaptation()
    truth = stream.test[1].labels
    labelled, hidden = stream.experience(0), stream.experience(1)

    def holds(experience: Experience, labels: np.ndarray) -> bool:
        arrays = [each for each in reachable(experience) if isinstance(each, np.ndarray)]
        assert any(each.dtype == np.uint8 for each in arrays), "the walk came as far as the images"
        return any(np.array_equal(each, labels) for each in arrays)

    assert holds(labelled, stream.train[0].labels), "the walk finds labels where there are some"
    assert not holds(hidden, truth)
    assert (hidden.train.labels == -1).all()
    assert isinstance(hidden.train, Unlabelled)
    for ask in (
        lambda data: data.targets,
        lambda data: data.take(np.arange(2)),
        lambda data: data.labels_at(np.arange(2)),
        lambda data: data.subset(np.arange(2)).targets,
    ):
        with pytest.raises(DataError, match="have no labels"):
            ask(hidden.train)


def test_what_comes_without_labels_are_the_test_images() -> None:
    stream, plain = adaptation(), small()
    shown = corrupted(small(), severity=3, corruptions=["fog", "contrast"])
    assert len(stream) == 3
    assert stream.experience(0).labelled
    assert np.array_equal(stream.train[0].take(np.arange(9))[0], plain.train.images[:9])
    for index in (1, 2):
        experience = stream.experience(index)
        assert not experience.labelled
        assert (experience.classes, experience.new_classes) == ((), ())
        assert experience.names == tuple("abcd")
        pixels = experience.train.pixels_at(np.arange(24))
        images, labels = stream.test[index].take(np.arange(24))
        assert np.array_equal(pixels, images)
        assert np.array_equal(labels, plain.test.labels)
        assert np.array_equal(images, shown.test[index].take(np.arange(24))[0])
    assert len(at_test_time("digits")) == 16
    assert adaptation().fingerprint() == stream.fingerprint()
    other = at_test_time(small(), severity=4, corruptions=["fog", "contrast"])
    assert other.fingerprint() != stream.fingerprint()


@pytest.mark.parametrize("strategy", ["naive", "olora", "simplecil", "er", "ranpac", "ewc"])
def test_a_strategy_that_learns_from_labels_says_so(compose: Compose, strategy: str) -> None:
    target = "stream._target_=tests.streams.test_unlabelled.adaptation"
    experiment = Experiment(compose(f"strategy={strategy}", target), loggers=[])
    with pytest.raises(DataError, match=r"have no labels, and the strategy .* learns from labels"):
        experiment.run()
    assert experiment.matrix.rows == 1, "the labelled experience was learnt"


class Entropy(Strategy):
    """The smallest test-time method: after the labelled experience, confident answers are made more so."""

    def before_experience(self, experience: Experience) -> None:
        self.gradient_free = not experience.labelled
        if experience.labelled:
            super().before_experience(experience)

    def after_experience(self, experience: Experience) -> None:
        if experience.labelled:
            return
        scales = [p for name, p in self.run.model.backbone.named_parameters() if "norm" in name]
        optimizer = torch.optim.SGD(scales, lr=0.01)
        for positions in index_batches(len(experience.train), 8):
            logits = self.predict(self.prepare(experience.train.pixels_at(positions)))
            entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
            optimizer.zero_grad()
            entropy.backward()
            optimizer.step()
            self.log("entropy", entropy)


def test_a_test_time_method_runs_on_it(compose: Compose) -> None:
    targets = [f"{part}._target_=tests.streams.test_unlabelled.{name}" for part, name in
               (("stream", "adaptation"), ("strategy", "Entropy"))]  # fmt: skip
    experiment = Experiment(compose("strategy=custom", *targets), loggers=[])
    model = experiment.learner.model
    seen: list[Tensor] = []
    learn = experiment.learner.learn_experience

    def watched(experience: Experience, *rest: Any, **more: Any) -> int:
        steps = learn(experience, *rest, **more)
        seen.append(next(p for n, p in model.backbone.named_parameters() if "norm" in n).clone())
        return steps

    experiment.learner.learn_experience = watched  # type: ignore[method-assign]
    summary = experiment.run()
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert np.isfinite(np.tril(experiment.matrix.values())).all()
    assert summary["forward_transfer"] is not None, "what it makes of a corruption before it adapts"


def test_labels_for_some_images_only() -> None:
    data = toy_images(12, 2, 0)
    some = ArrayDataset.of(data.images, np.where(np.arange(12) < 3, -1, data.labels))
    with pytest.raises(DataError, match=r"toy, task 0: some images have no label"):
        Stream("toy", "class-incremental", (some,), (data,), ("a", "b"))


def test_a_stream_of_one_s_own_may_lack_labels() -> None:
    """Also where the classes are counted by us, and where the sets are made when they are asked for."""
    data = toy_images(12, 2, 0)
    none = ArrayDataset.of(data.images, np.full(12, -1))
    stream = Stream("toy", "domain-incremental", (data, none), (data, data), ("a", "b"))
    assert stream.seen == (2, 2)
    sets = Lazy(2, lambda index: (data, none)[index])
    lazy = Stream("toy", "domain-incremental", sets, stream.test, ("a", "b"), seen=(2, 2))
    assert [lazy.experience(index).labelled for index in range(2)] == [True, False]


def test_the_tools_around_a_stream_do_without_labels(tmp_path: Path) -> None:
    stream = adaptation()
    draw(stream, tmp_path / "picture.png")
    assert set(stream.split()["train_labels"][48:]) == {-1}
    stream.save_split(tmp_path / "split.npz")
    with pytest.raises(DataError, match="Avalanche has no experiences without labels"):
        to_avalanche(stream)
