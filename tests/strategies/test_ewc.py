"""EWC against the formula, and what it is for."""

from __future__ import annotations

import pytest
import torch

from cl.errors import ConfigurationError
from cl.learner import Learner
from strategies.ewc import EWC
from tests.conftest import Compose, toy_stream


def taught(compose: Compose, *overrides: str) -> Learner:
    stream = toy_stream()
    learner = Learner(compose("strategy=ewc", "trainer.lr=1e-3", *overrides), stream.info)
    learner.learn(stream.experience(0))
    return learner


def test_penalty_is_half_lambda_times_fisher_times_squared_distance(compose: Compose) -> None:
    learner = taught(compose, "strategy.strength=50.0")
    strategy = learner.strategy
    assert isinstance(strategy, EWC)
    assert torch.as_tensor(strategy.penalty()).item() == 0.0
    anchor = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter += 0.01 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(0)
            )
    expected = sum(
        50.0
        / 2
        * (strategy.springs.stiffness[name] * (p.detach() - anchor[name]) ** 2).sum().double()
        for name, p in learner.model.named_parameters()
    )
    assert float(strategy.penalty()) == pytest.approx(float(expected), rel=1e-4)


def test_a_stronger_spring_holds_the_weights_that_matter(compose: Compose) -> None:
    """The distance moved, weighted by the Fisher information, falls as the strength grows."""
    stream, moved = toy_stream(), []
    for strength in (0.0, 1e7, 1e8):
        learner = taught(compose, "trainer.epochs=10", f"strategy.strength={strength}")
        strategy = learner.strategy
        assert isinstance(strategy, EWC)
        before = strategy.springs.centre
        fisher = {name: value.clone() for name, value in strategy.springs.stiffness.items()}
        start = {name: value.clone() for name, value in before.items()}
        learner.learn(stream.experience(1))
        weights = dict(learner.model.named_parameters())
        distance = sum(
            (fisher[n] * (weights[n].detach()[: len(start[n])] - start[n]) ** 2).sum()
            for n in start
        )
        moved.append(float(distance))
    assert moved[0] > 1.5 * moved[1] > 3 * moved[2], moved


def test_memory_does_not_grow_with_the_tasks(compose: Compose) -> None:
    stream = toy_stream(tasks=4)
    learner = Learner(compose("strategy=ewc"), stream.info)
    sizes = []
    for index in range(4):
        learner.learn(stream.experience(index))
        sizes.append(learner.stored_numbers - 3 * (learner.model.features + 1) * (index + 1))
    assert len(set(sizes)) == 1, "beyond the rows of the head, nothing is added"


def test_a_subset_of_the_images_is_random_but_fixed(compose: Compose) -> None:
    learner = taught(compose, "strategy.fisher_samples=5")
    experience = toy_stream().experience(0)
    first, second = (
        torch.cat([b.images for b in learner.strategy.batches(experience, limit=5)])
        for _ in range(2)
    )
    assert len(first) == 5
    assert torch.equal(first, second)


def test_normalised_fishers_add_up_to_one_for_each_task(compose: Compose) -> None:
    stream = toy_stream()
    chosen = ("strategy.fisher=model", "strategy.normalise=mean", "strategy.strength=0")
    learner = Learner(compose("strategy=ewc", *chosen), stream.info)
    for index in range(2):
        learner.learn(stream.experience(index))
        strategy = learner.strategy
        assert isinstance(strategy, EWC)
        numbers = torch.cat([value.flatten() for _, value in strategy.springs.stiffness.items()])
        total = (index + 1) * numbers.numel()
        if index:  # the two new rows of the head were not there in the first task
            total -= 2 * (learner.model.features + 1)
        assert float(numbers.sum()) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": -1.0}, "strength=-1.0"),
        ({"fisher_samples": 0}, "fisher_samples=0"),
        ({"fisher": "exact"}, "fisher=exact"),
        ({"normalise": "sum"}, "normalise=sum"),
    ],
)
def test_values_out_of_range(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        EWC(**arguments)  # type: ignore[arg-type]
