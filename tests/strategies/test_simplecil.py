from __future__ import annotations

import numpy as np
import torch

from cl.learner import Learner
from tests.conftest import Compose, toy_images, toy_stream


def test_the_result_does_not_depend_on_the_split(compose: Compose) -> None:
    logits = []
    for tasks in (1, 2, 4):
        stream = toy_stream(tasks=tasks)
        learner = Learner(compose("strategy=simplecil"), stream.info)
        for index in range(tasks):
            learner.learn(stream.experience(index))
        logits.append(torch.cat([learner.logits(test) for test in toy_stream(tasks=4).test]))
    torch.testing.assert_close(logits[1], logits[0])
    torch.testing.assert_close(logits[2], logits[0])


def test_the_result_does_not_depend_on_the_order_of_the_classes(compose: Compose) -> None:
    """The same accuracy exactly: the same class for every image."""
    answers = []
    for order in ([0, 1, 2, 3], [2, 3, 0, 1], [3, 1, 0, 2]):
        stream = toy_stream(order=order)
        learner = Learner(compose("strategy=simplecil"), stream.info)
        for index in range(2):
            learner.learn(stream.experience(index))
        named = np.array(stream.class_names)[learner.predict(toy_images(24, 4, 1).images)]
        answers.append(named.tolist())
    assert answers[0] == answers[1] == answers[2]


def test_nothing_is_trained(compose: Compose) -> None:
    learner = Learner(compose("strategy=simplecil"), toy_stream().info)
    before = {n: p.clone() for n, p in learner.model.backbone.named_parameters()}
    learner.learn(toy_stream().experience(0))
    assert learner.trainable_parameters == 0
    for name, parameter in learner.model.backbone.named_parameters():
        assert torch.equal(parameter, before[name])
        assert not parameter.requires_grad
