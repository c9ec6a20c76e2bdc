from __future__ import annotations

import torch

from cl.learner import Learner
from tests.conftest import Compose, toy_stream


def test_the_average_is_the_formula(compose: Compose) -> None:
    """θ̄ ← d θ̄ + (1 − d) θ over the same path as without the plugin, which does not disturb it."""
    stream = toy_stream()
    plain = Learner(compose("strategy=naive"), stream.info)
    path: list[torch.Tensor] = []
    name = "backbone.blocks.0.mlp.fc1.weight"
    start = plain.model.get_parameter(name).detach().clone()
    plain.learn(
        stream.experience(0),
        lambda progress: path.append(plain.model.get_parameter(name).detach().clone()),
    )
    expected = start
    for weight in path:
        expected = 0.8 * expected + 0.2 * weight
    averaged = Learner(
        compose("strategy=naive", "plugin=[ema]", "plugin.ema.decay=0.8"), stream.info
    )
    averaged.learn(stream.experience(0))
    torch.testing.assert_close(averaged.model.get_parameter(name).detach(), expected)
