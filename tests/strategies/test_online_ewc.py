"""Online EWC against the formula, EWC, and Avalanche's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.training.plugins import EWCPlugin

from cl.errors import ConfigurationError
from cl.learner import Learner
from strategies.online_ewc import OnlineEWC
from tests.conftest import Compose, toy_stream

WEIGHT = "backbone.blocks.0.mlp.fc1.weight"


def taught(compose: Compose, *overrides: str, experiences: int = 2) -> Learner:
    stream = toy_stream()
    learner = Learner(compose("trainer.lr=1e-3", *overrides), stream.info)
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


def springs(learner: Learner) -> Any:
    strategy: Any = learner.strategy
    return strategy.springs


def test_without_decay_only_the_last_task_counts_and_with_it_all_do(compose: Compose) -> None:
    """At strength 0 the paths are the same, so Ω with γ = 1 less Ω with γ = 0 is the first task's F."""
    base = ("strategy=online_ewc", "strategy.strength=0")
    first = springs(taught(compose, *base, experiences=1)).stiffness[WEIGHT]
    last = springs(taught(compose, *base, "strategy.decay=0")).stiffness[WEIGHT]
    for decay in (1.0, 0.5):
        learner = taught(compose, *base, f"strategy.decay={decay}")
        torch.testing.assert_close(
            springs(learner).stiffness[WEIGHT], decay * first + last, rtol=1e-5, atol=0
        )
        assert torch.equal(springs(learner).centre[WEIGHT], learner.model.get_parameter(WEIGHT))


def test_one_task_is_ewc(compose: Compose) -> None:
    ours, ewc = (
        taught(compose, f"strategy={name}", "strategy.strength=1e6", experiences=2)
        for name in ("online_ewc", "ewc")
    )
    for name, weight in ours.model.named_parameters():
        torch.testing.assert_close(weight, ewc.model.get_parameter(name), rtol=1e-4, atol=1e-6)


def test_avalanche_has_the_same_penalty_at_half_the_strength(compose: Compose) -> None:
    """Its online plugin adds λ Σ Ω Δ²: with the same Ω and θ*, λ here is twice that."""
    learner = taught(compose, "strategy=online_ewc", "strategy.strength=40.0")
    strategy: Any = learner.strategy
    reference: Any = EWCPlugin(20.0, mode="online", decay_factor=1.0)
    for name, stiffness in strategy.springs.stiffness.items():
        for store, tensor in (
            (reference.importances, stiffness),
            (reference.saved_params, strategy.springs.centre[name]),
        ):
            store[1][name] = SimpleNamespace(expand=lambda shape, tensor=tensor: tensor)
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter += 0.01
    loop: Any = SimpleNamespace(
        clock=SimpleNamespace(train_exp_counter=2),
        device="cpu",
        model=learner.model,
        loss=torch.zeros(()),
    )
    with torch.no_grad():
        reference.before_backward(loop)
        torch.testing.assert_close(
            torch.as_tensor(strategy.penalty()), loop.loss, rtol=1e-4, atol=0
        )
    assert loop.loss > 0


@pytest.mark.parametrize("fisher", ["model", "batch"])
def test_other_fishers_and_scales_are_used(compose: Compose, fisher: str) -> None:
    chosen = (f"strategy.fisher={fisher}", "strategy.normalise=max")
    learner = taught(compose, "strategy=online_ewc", *chosen, experiences=1)
    largest = max(float(value.max()) for _, value in springs(learner).stiffness.items())
    assert largest == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": -1.0}, "strength=-1.0"),
        ({"decay": 2.0}, "decay=2.0"),
        ({"fisher": "exact"}, "fisher=exact"),
        ({"normalise": "sum"}, "normalise=sum"),
        ({"fisher_samples": 0}, "fisher_samples=0"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        OnlineEWC(**arguments)
