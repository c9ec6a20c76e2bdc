from __future__ import annotations

import torch

from cl.learner import Learner
from cl.models.lora import lora_layers
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
        on_step=lambda progress: path.append(plain.model.get_parameter(name).detach().clone()),
    )
    expected = start
    for weight in path:
        expected = 0.8 * expected + 0.2 * weight
    averaged = Learner(
        compose("strategy=naive", "plugin=[ema]", "plugin.ema.decay=0.8"), stream.info
    )
    averaged.learn(stream.experience(0))
    torch.testing.assert_close(averaged.model.get_parameter(name).detach(), expected)


def test_the_average_is_taken_before_a_strategy_merges_its_adapters(compose: Compose) -> None:
    """What a task leaves in the frozen factors is the averaged adapter, and it is there only once."""
    stream, decay = toy_stream(), 0.8
    path: list[torch.Tensor] = []
    plain = Learner(compose("strategy=olora", "strategy.rank=2"), stream.info)
    (first, *_) = lora_layers(plain.model)
    plain.learn(
        stream.experience(0), on_step=lambda progress: path.append(first.B.detach().clone())
    )
    expected = torch.zeros_like(path[0])
    for factor in path:
        expected = decay * expected + (1 - decay) * factor
    cfg = compose("strategy=olora", "strategy.rank=2", "plugin=[ema]", f"plugin.ema.decay={decay}")
    averaged = Learner(cfg, stream.info)
    averaged.learn(stream.experience(0))
    (layer, *_) = lora_layers(averaged.model)
    torch.testing.assert_close(layer.old_B, expected)
    assert not layer.B.any()
