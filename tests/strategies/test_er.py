"""Experience replay: what a step trains on, and what the memory is worth."""

from __future__ import annotations

import pytest
import torch

from cl.data import Batch
from cl.errors import ConfigurationError
from cl.evaluation import evaluate
from cl.learner import Learner
from strategies.er import ER
from tests.conftest import Compose, toy_stream


def learn(compose: Compose, *overrides: str, experiences: int = 2) -> Learner:
    stream = toy_stream()
    learner = Learner(compose(*overrides), stream.info)
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


def test_without_a_memory_it_is_naive_fine_tuning_over_the_classes_seen(compose: Compose) -> None:
    replay = learn(compose, "strategy=er", "strategy.memory=0")
    naive = learn(compose, "strategy=naive", "strategy.classes=seen")
    for name, tensor in naive.model.state_dict().items():
        assert torch.equal(tensor, replay.model.state_dict()[name]), name


def test_old_classes_are_remembered(compose: Compose) -> None:
    training = ("trainer.lr=3e-4", "trainer.epochs=20")
    accuracy = []
    for size in (0, 24):
        learner = learn(compose, "strategy=er", f"strategy.memory={size}", *training)
        first, _ = evaluate(learner, toy_stream(), 1)
        accuracy.append(first.correct / first.images)
    assert accuracy[0] < 0.2
    assert accuracy[1] > 0.7


def test_the_loss_is_over_the_batch_and_the_memory_but_not_twice_over_an_image(
    compose: Compose,
) -> None:
    """With a memory of everything, a step of the second pass sees each image of the data once."""
    learner = learn(compose, "strategy=er", experiences=1)
    stream, strategy, shown = toy_stream(), learner.strategy, []
    assert isinstance(strategy, ER)
    experience = stream.experience(1)
    strategy.before_experience(experience)
    strategy.memory_batch = 1000
    forward = learner.model.forward
    learner.model.forward = lambda images: (shown.append(images), forward(images))[1]  # type: ignore[method-assign]
    first, *_ = list(strategy.batches(experience))
    parts = [Batch(*(values[part] for values in first)) for part in (slice(0, 16), slice(16, 24))]
    losses = [strategy.loss(part) for _ in range(2) for part in parts]
    everything = torch.cat(
        [b.images for i in range(2) for b in strategy.batches(stream.experience(i))]
    )
    assert [len(images) for images in shown] == [16 + 24, 8 + 24 + 16, 48, 48]
    assert len(torch.unique(shown[-1], dim=0)) == len(torch.unique(everything, dim=0))
    labels = torch.cat(
        [batch.labels for i in range(2) for batch in strategy.batches(stream.experience(i))]
    )
    expected = torch.nn.functional.cross_entropy(forward(everything), labels)
    torch.testing.assert_close(losses[-1], expected, rtol=1e-4, atol=1e-5)


def test_what_is_stored_is_logged_and_counted(compose: Compose) -> None:
    learner = learn(compose, "strategy=er", "strategy.memory=10")
    strategy = learner.strategy
    assert isinstance(strategy, ER)
    assert len(strategy.memory) == 10
    assert float(learner.logged["memory_bytes"]) == 10 * (8 * 8 * 3 + 2 * 8)
    numbers = 10 * (8 * 8 * 3 + 2)
    assert learner.stored_numbers == numbers + 4 * (learner.model.features + 1)


@pytest.mark.parametrize(("memory", "unit", "count"), [(7, "images", 7), (2000, "bytes", 9)])
def test_sizes(compose: Compose, memory: int, unit: str, count: int) -> None:
    strategy = learn(
        compose, "strategy=er", f"strategy.memory={memory}", f"strategy.memory_unit={unit}"
    ).strategy
    assert isinstance(strategy, ER)
    assert len(strategy.memory) == count


def test_values_out_of_range() -> None:
    with pytest.raises(ConfigurationError, match="memory_batch=0"):
        ER(memory_batch=0)
