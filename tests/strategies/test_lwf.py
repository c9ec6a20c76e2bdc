"""LwF: who the teacher is, and what it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training.regularization import LearningWithoutForgetting
from torch.nn import functional as F

from cl.data import Batch
from cl.errors import ConfigurationError
from cl.learner import Learner
from strategies.lwf import LwF
from tests.conftest import Compose, toy_stream


def at_the_second_task(compose: Compose, strength: float) -> tuple[Learner, Any, Batch]:
    stream = toy_stream()
    learner = Learner(compose("strategy=lwf", strength=strength), stream.info)
    learner.learn(stream.experience(0))
    learner.strategy.before_experience(stream.experience(1))
    return learner, learner.strategy, next(learner.strategy.batches(stream.experience(1)))


def test_the_loss_is_cross_entropy_while_the_student_is_the_teacher(compose: Compose) -> None:
    learner, strategy, batch = at_the_second_task(compose, 100.0)
    loss = strategy.loss(batch)
    plain = F.cross_entropy(learner.model(batch.images)[:, 2:], batch.labels - 2)
    torch.testing.assert_close(loss, plain)
    weight = learner.model.get_parameter("head.weight")
    (ours,) = torch.autograd.grad(loss, weight)
    (theirs,) = torch.autograd.grad(plain, weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_loss_is_avalanches_with_the_cross_entropy_over_the_new_classes(
    compose: Compose,
) -> None:
    learner, strategy, batch = at_the_second_task(compose, 0.7)
    reference = LearningWithoutForgetting(alpha=0.7, temperature=2)
    reference.prev_model = strategy.teacher[0]
    reference.prev_classes_by_task[0] = {0, 1}
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter += 0.02 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(1)
            )
        logits = learner.model(batch.images)
        kept = reference(batch.images, logits, learner.model)
        expected = F.cross_entropy(logits[:, 2:], batch.labels - 2) + kept
        torch.testing.assert_close(strategy.loss(batch), expected)
    assert kept > 1e-4


def test_the_teacher_is_frozen_in_evaluation_mode_and_not_stored(compose: Compose) -> None:
    learner, strategy, _ = at_the_second_task(compose, 1.0)
    (teacher,) = strategy.teacher
    learner.model.train()
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert teacher.head.classes == 2
    assert not strategy.state_dict()
    learner.learn_experience(toy_stream().experience(1))
    assert strategy.teacher == []


def test_a_learner_opened_later_has_the_same_teacher(compose: Compose, tmp_path: Path) -> None:
    stream = toy_stream()
    learner = Learner(compose("strategy=lwf", strength=5.0), stream.info)
    learner.learn(stream.experience(0))
    learner.save(tmp_path / "saved")
    opened = Learner.load(tmp_path / "saved")
    for each in (learner, opened):
        each.learn(stream.experience(1))
    assert torch.equal(opened.logits(stream.test[0]), learner.logits(stream.test[0]))


def test_stronger_distillation_keeps_the_old_answers(compose: Compose) -> None:
    stream, distances = toy_stream(), []
    training = ("trainer.lr=1e-3", "trainer.epochs=10")
    for strength in (0.0, 10.0):
        learner = Learner(compose("strategy=lwf", *training, strength=strength), stream.info)
        learner.learn(stream.experience(0))
        before = learner.logits(stream.test[1]).log_softmax(1)
        learner.learn(stream.experience(1))
        after = learner.logits(stream.test[1])[:, :2].log_softmax(1)
        distances.append(float(F.kl_div(after, before, reduction="batchmean", log_target=True)))
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"strength": -1.0}, "strength=-1.0"), ({"temperature": 0.0}, "temperature=0.0")],
)
def test_values_out_of_range(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LwF(**arguments)
