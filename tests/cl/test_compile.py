"""trainer.compile: the same numbers, and no translation again and again as adapters grow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from cl.learner import Learner
from tests.conftest import Compose, toy_stream

EXPERIENCES = 5


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Counts the graphs that are captured; they then run as they are, without a C++ compiler."""
    counter = CompileCounter()
    original = torch.nn.Module.compile

    def compile(self: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, backend=counter, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    torch._dynamo.reset()
    return counter


@pytest.mark.parametrize("strategy", ["naive", "ewc", "olora", "sd_lora", "ease"])
def test_compiled_blocks_give_the_same_and_are_compiled_a_few_times(
    compose: Compose, counter: CompileCounter, strategy: str
) -> None:
    stream = toy_stream(EXPERIENCES, 2 * EXPERIENCES, 8 * EXPERIENCES)
    small = [f"strategy={strategy}", "cache.memory_gb=0", "trainer.epochs=1"]
    plain = Learner(compose(*small), stream.info)
    compiled = Learner(compose(*small, "trainer.compile=true"), stream.info)
    graphs = []
    for index in range(EXPERIENCES):
        for learner in (plain, compiled):
            learner.learn(stream.experience(index))
        answers = compiled.logits(stream.test[0])
        torch.testing.assert_close(answers, plain.logits(stream.test[0]), atol=1e-5, rtol=1e-4)
        graphs.append(counter.frame_count)
    assert graphs[0] > 0, "something was compiled"
    assert graphs[2] == graphs[-1], f"graphs after each experience: {graphs}"
