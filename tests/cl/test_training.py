"""The optimisation loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from cl.config import TrainerConfig
from cl.data import Order
from cl.errors import ConfigurationError, DivergenceError
from cl.learner import Learner
from cl.strategy import Progress
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


def factors(schedule: str, epochs: int, steps: int, **more: Any) -> list[float]:
    config = TrainerConfig(schedule=schedule, epochs=epochs, **more)
    return [learning_rate_factor(config, step, steps) for step in range(steps)]


def test_schedules() -> None:
    assert factors("constant", 2, 4) == [1.0] * 4
    half = factors("cosine", 1, 10)
    assert half[0] == 1.0
    assert half[5] == pytest.approx(0.5)
    assert learning_rate_factor(TrainerConfig(schedule="cosine"), 10, 10) == pytest.approx(0.0)
    dropped = factors("milestones", 4, 8, milestones=[1, 3])
    assert dropped == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    with pytest.raises(ConfigurationError, match=r"trainer\.milestones=\[18\]"):
        TrainerConfig(schedule="milestones")
    with pytest.raises(ConfigurationError, match=r"milestones=\[\]"):
        TrainerConfig(milestones=[3])


def test_a_quarter_cosine_changes_by_the_epoch() -> None:
    found = factors("quarter_cosine", 20, 60)
    assert found[0] == 1.0
    assert found[-1] == pytest.approx(0.015707, rel=1e-4)
    for epoch in range(20):
        expected = math.cos(99 * math.pi * epoch / (200 * 19))
        assert found[3 * epoch : 3 * epoch + 3] == pytest.approx([expected] * 3)
    assert factors("quarter_cosine", 1, 3) == [1.0] * 3


def test_the_loop_follows_the_quarter_cosine(compose: Compose) -> None:
    cfg = compose("strategy=naive", "trainer.lr=1e-3", "trainer.schedule=quarter_cosine")
    seen: list[Progress] = []
    Learner(cfg, toy_stream().info).learn(toy_stream().experience(0), on_step=seen.append)
    assert [p.lr for p in seen] == pytest.approx([1e-3] * 3 + [1.5707e-5] * 3, rel=1e-4)
