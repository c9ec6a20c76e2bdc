"""MAS against its formula and against Avalanche's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.training.plugins import MASPlugin
from torch import Tensor, nn

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.ops.fisher import mean_over_images
from strategies.mas import MAS
from tests.conftest import Compose, toy_stream


def sensitivity(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return mean_over_images(model, [(images, labels)], lambda z, y: z.square().sum(), torch.abs)


def avalanche(model: nn.Module, images: Tensor, batch_size: int) -> dict[str, Tensor]:
    dataset = [(image, 0, 0) for image in images]
    loop: Any = SimpleNamespace(
        model=model,
        experience=SimpleNamespace(dataset=dataset),
        train_mb_size=batch_size,
        device="cpu",
        optimizer=torch.optim.SGD(model.parameters()),
    )
    return {name: value.data for name, value in MASPlugin()._get_importance(loop).items()}


def test_of_a_line_it_is_the_derivative_of_the_square() -> None:
    """f = wx: |∂ f²/∂w| = |2 w x²|, the mean over images."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, -1.5)
    found = sensitivity(model, torch.tensor([[1.0], [2.0]]))
    assert found["weight"].item() == pytest.approx((3.0 + 12.0) / 2)


def test_avalanche_agrees_for_batches_of_one_and_not_for_larger_ones() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    images = torch.randn(10, 4)
    ours, theirs, batched = (
        sensitivity(model, images),
        avalanche(model, images, 1),
        avalanche(model, images, 5),
    )
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])
    assert ours["0.weight"].mean() > 1.1 * batched["0.weight"].mean(), "gradients of a batch cancel"


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_penalty_is_strength_times_the_sum_over_tasks(compose: Compose, decay: float) -> None:
    stream = toy_stream()
    learner = Learner(compose("strategy=mas", strength=3.0, decay=decay), stream.info)
    strategy = learner.strategy
    assert isinstance(strategy, MAS)
    name, each = "backbone.blocks.0.mlp.fc1.weight", []
    for index in range(2):
        learner.learn(stream.experience(index))
        images = torch.cat([b.images for b in strategy.batches(stream.experience(index))])
        each.append(sensitivity(learner.model, images)[name])
    assert torch.as_tensor(strategy.penalty()).item() == 0.0
    with torch.no_grad():
        learner.model.get_parameter(name).add_(0.02)
    expected = 3.0 * ((decay * each[0] + each[1]) * 0.02**2).sum().item()
    assert torch.as_tensor(strategy.penalty()).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": -1.0}, "strength=-1.0"),
        ({"decay": 1.5}, "decay=1.5"),
        ({"samples": 0}, "samples=0"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MAS(**arguments)
