"""The optimisation loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cl.config import TrainerConfig
from cl.data import Order
from cl.errors import DivergenceError
from cl.learner import Learner
from cl.training import count_steps, create_optimizer, learning_rate_factor
from tests.conftest import Compose, toy_stream


def test_a_loss_that_diverges_stops_with_what_to_do(compose: Compose) -> None:
    cfg = compose("strategy=naive", "trainer.lr=1e38", "trainer.optimizer=sgd")
    learner = Learner(cfg, toy_stream().info)
    with pytest.raises(DivergenceError) as error:
        learner.learn(toy_stream().experience(0))
    message = str(error.value)
    assert "learning rate 1e+38" in message
    assert "trainer.lr=1e+37" in message
    assert "backbone." in message, "the tensors are named"


def test_the_loop_is_the_one_that_one_would_write(compose: Compose) -> None:
    """Our loop against the same steps by hand: the same bits."""
    stream = toy_stream()
    cfg = compose("strategy=naive", "trainer.lr=1e-3", "trainer.schedule=cosine")
    learner = Learner(cfg, stream.info)
    twin = Learner(cfg, stream.info)
    learner.learn(stream.experience(0))

    experience = stream.experience(0)
    twin.strategy.before_experience(experience)
    optimiser = torch.optim.AdamW(twin.model.parameters(), lr=1e-3, weight_decay=0.0)
    from cl.random import generator

    order, steps, step = (
        Order(generator(0, "order", 0)),
        count_steps(len(experience.train), twin.config),
        0,
    )
    twin.model.train()
    for _ in range(2):
        for batch in twin.training_batches(experience.train, order):
            optimiser.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
            loss = nn.functional.cross_entropy(twin.model(batch.images), batch.labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
    assert step == steps
    for (name, a), b in zip(learner.model.named_parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_progress_counts_images_and_steps(compose: Compose) -> None:
    learner = Learner(compose("strategy=naive"), toy_stream().info)
    seen = []
    steps = learner.learn(toy_stream().experience(0), on_step=seen.append)
    assert [p.step for p in seen] == list(range(1, steps + 1))
    assert seen[-1].images == 2 * 24
    assert steps == seen[-1].steps == 2 * 3


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_optimisers(name: str, kind: str) -> None:
    weight = nn.Parameter(torch.zeros(2))
    groups = [{"params": [weight], "lr": 0.5}]
    optimiser = create_optimizer(groups, TrainerConfig(optimizer=name, lr=0.1, weight_decay=0.01))
    assert type(optimiser).__name__ == kind
    assert optimiser.param_groups[0]["lr"] == 0.5, "a group's own setting wins"
    assert optimiser.param_groups[0]["weight_decay"] == 0.01


def test_schedules() -> None:
    assert learning_rate_factor("constant", 7, 10) == 1.0
    assert learning_rate_factor("cosine", 0, 10) == 1.0
    assert learning_rate_factor("cosine", 5, 10) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 10, 10) == pytest.approx(0.0)
