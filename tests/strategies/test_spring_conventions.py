"""Where two quadratics meet, in each method's own convention of its strength."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cl.strategy import Run
from strategies.ewc import EWC
from strategies.mas import MAS
from strategies.online_ewc import OnlineEWC
from strategies.si import SI


@pytest.mark.parametrize(
    ("method", "expected"), [(EWC, 0.0), (OnlineEWC, 0.0), (MAS, 1 / 3), (SI, 1 / 3)]
)
def test_the_minimum_of_a_parabola_and_a_spring(method: Any, expected: float) -> None:
    """½ (w + 1)² and importance 1 at w = 1: with ½ in the penalty 0, without it ⅓."""
    model: Any = nn.Module()
    model.w = nn.Parameter(torch.ones(1))
    strategy = method(strength=1.0)
    strategy.run = Run(model)
    strategy.springs.add(dict(model.named_parameters()), {"w": torch.ones(1)})
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        (0.5 * (model.w + 1).square().sum() + strategy.penalty()).backward()
        optimiser.step()
    assert model.w.item() == pytest.approx(expected, abs=1e-6)
