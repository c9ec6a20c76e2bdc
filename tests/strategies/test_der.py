"""DER and DER++ against their formulas and against ER."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from cl.data import Batch, Memory
from cl.data.memory import Sample
from cl.errors import ConfigurationError
from cl.evaluation import evaluate
from cl.learner import Learner
from strategies.der import DER, DERpp
from tests.conftest import Compose, toy_images, toy_stream


def learn(compose: Compose, *overrides: str, experiences: int = 2) -> Learner:
    stream = toy_stream()
    learner = Learner(compose(*overrides), stream.info)
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


@pytest.mark.parametrize("method", ["der", "derpp"])
def test_with_coefficients_zero_it_is_naive_over_the_classes_seen(
    compose: Compose, method: str
) -> None:
    zeros = ["strategy.alpha=0"] + (["strategy.beta=0"] if method == "derpp" else [])
    replay = learn(compose, f"strategy={method}", *zeros)
    naive = learn(compose, "strategy=naive", "strategy.classes=seen")
    for name, tensor in naive.model.state_dict().items():
        assert torch.equal(tensor, replay.model.state_dict()[name]), name


def second_experience(compose: Compose, method: str, **arguments: Any) -> tuple[Any, Batch]:
    """A strategy that has learnt one experience, at the first step of the second."""
    learner = learn(compose, f"strategy={method}", experiences=1)
    for name, value in arguments.items():
        setattr(learner.strategy, name, value)
    experience = toy_stream().experience(1)
    learner.strategy.before_experience(experience)
    images, labels, positions = next(learner.strategy.batches(experience))
    return learner.strategy, Batch(images[:8], labels[:8], positions[:8])


def stored(memory: Memory, strategy: DER) -> tuple[torch.Tensor, ...]:
    """Everything in the memory: what the model says now, the stored logits, and the labels."""
    return strategy.run.model(strategy.prepare(memory.images)), memory.logits, memory.labels


def test_der_is_the_formula_with_a_head_that_has_grown(compose: Compose) -> None:
    """CE + alpha · MSE: two classes were known then; the two that the head has now besides are held at 0."""
    strategy, batch = second_experience(compose, "der", alpha=0.7, memory_batch=1000)
    with torch.no_grad():
        now, then, _ = stored(strategy.memory, strategy)
        assert (now.shape[1], then.shape[1]) == (4, 2)
        expected = F.cross_entropy(strategy.run.model(batch.images), batch.labels)
        expected = expected + 0.7 * F.mse_loss(now, F.pad(then, (0, 2)))
        torch.testing.assert_close(strategy.loss(batch), expected)


def test_derpp_without_alpha_is_er_in_two_terms(compose: Compose) -> None:
    """CE(batch) + beta · CE(memory): with ER's weights it would be ER's loss."""
    strategy, batch = second_experience(compose, "derpp", alpha=0.0, beta=0.6, memory_batch=1000)
    with torch.no_grad():
        now, _, labels = stored(strategy.memory, strategy)
        expected = F.cross_entropy(strategy.run.model(batch.images), batch.labels)
        expected = expected + 0.6 * F.cross_entropy(now, labels)
        torch.testing.assert_close(strategy.loss(batch), expected)


def test_derpp_without_alpha_is_twice_er_when_the_batches_are_of_one_size(compose: Compose) -> None:
    """ER's mean is over both batches together, DER++'s two means are added: with β = 1 twice as much."""
    losses = []
    for method in ("derpp", "er"):
        strategy, batch = second_experience(compose, method, memory_batch=8)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():  # both learnt other weights: give them the same
            for parameter in strategy.run.model.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        if method == "derpp":
            strategy.alpha, strategy.beta = 0.0, 1.0
        old = toy_images(8, 2, seed=0)
        sample = Sample(
            torch.from_numpy(old.images), torch.from_numpy(old.targets), torch.zeros(8, 0)
        )
        strategy.memory.recall = lambda count, batch, sample=sample: sample
        losses.append(strategy.loss(batch).detach())
    torch.testing.assert_close(losses[0], 2 * losses[1])


def test_the_two_draws_are_independent(compose: Compose) -> None:
    strategy, batch = second_experience(compose, "derpp", memory_batch=6)
    drawn: list[torch.Tensor] = []
    draw = strategy.memory.draw

    def noted(*arguments: Any, **named: Any) -> Any:
        sample = draw(*arguments, **named)
        drawn.append(sample.images)
        return sample

    strategy.memory.draw = noted
    strategy.loss(batch)
    assert len(drawn) == 2
    assert not torch.equal(*drawn)


def test_logits_are_those_of_the_moment_of_the_offer(compose: Compose) -> None:
    strategy, batch = second_experience(compose, "der")
    before = len(strategy.memory)
    with torch.no_grad():
        logits = strategy.run.model(batch.images)
        strategy.loss(batch)
    memory = strategy.memory
    assert len(memory) == before + 8, "there is room for all of the batch"
    torch.testing.assert_close(memory.logits[before:], logits)
    assert not memory.logits[:before, 2:].any()
    torch.testing.assert_close(strategy.prepare(memory.images[before:]), batch.images)


@pytest.mark.parametrize(("repeats", "copies"), [("true", 2), ("false", 1)])
def test_repeats(compose: Compose, repeats: str, copies: int) -> None:
    learner = learn(compose, "strategy=der", f"strategy.repeats={repeats}", experiences=1)
    assert isinstance(learner.strategy, DER)
    assert len(learner.strategy.memory) == copies * 24, "two epochs over 24 images"


def test_old_classes_are_remembered(compose: Compose) -> None:
    training = ("trainer.lr=3e-4", "trainer.epochs=20", "strategy.memory=48")
    for method in ("der", "derpp"):
        learner = learn(compose, f"strategy={method}", *training)
        within = [
            cell.correct_within_task / cell.images for cell in evaluate(learner, toy_stream(), 1)
        ]
        assert min(within) > 0.9
    first, _ = evaluate(learner, toy_stream(), 1)
    assert first.correct / first.images > 0.7, "the labels of the memory say which task it is"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1.0}, "alpha=-1.0"),
        ({"beta": -1.0}, "beta=-1.0"),
        ({"memory_batch": 0}, "memory_batch=0"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        DERpp(**arguments)
