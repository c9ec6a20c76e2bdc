"""Watching the inputs of layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cl.models.watching import watch_inputs


def test_inputs_are_seen_while_it_lasts_and_no_longer() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    seen: list[tuple[int, Tensor]] = []
    x = torch.randn(5, 3)
    with watch_inputs([model[2], model[0]], lambda index, inputs: seen.append((index, inputs))):
        model(x)
    model(x)
    assert [index for index, _ in seen] == [1, 0]
    assert torch.equal(seen[0][1], x)
    assert torch.equal(seen[1][1], model[1](model[0](x)))


def test_the_watch_ends_even_when_something_fails() -> None:
    model = nn.Linear(3, 4)
    seen: list[int] = []
    with (
        pytest.raises(RuntimeError),
        watch_inputs([model], lambda index, inputs: seen.append(index)),
    ):
        model(torch.randn(5, 2))
    assert seen == [0]
    model(torch.randn(5, 3))
    assert seen == [0]
