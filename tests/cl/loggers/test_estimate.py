"""The estimate of the steps to come, for methods that train on different things."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cl.loggers import ConsoleLogger
from cl.loggers.estimate import StepEstimate
from tests.cl.loggers.events import STEPS, result, run_info, step

LENGTHS = [400, 200, 100, 300, 250]
OWN = [math.ceil(length / 16) for length in LENGTHS]


def on_own(index: int) -> int:
    return OWN[index]


def on_all_seen(index: int) -> int:
    return math.ceil(sum(LENGTHS[: index + 1]) / 16)


def first_only(index: int) -> int:
    return OWN[0] if index == 0 else 0


@pytest.mark.parametrize(
    ("steps", "known_after"),
    [(on_own, 0), (on_all_seen, 1), (first_only, 1)],
)
@pytest.mark.parametrize("resumed", [0, 2])
def test_the_total_is_right_as_soon_as_it_can_be_known(
    steps: Callable[[int], int], known_after: int, resumed: int
) -> None:
    """resumed: the experience that a run goes on with, without having seen the steps of those before."""
    taken = [steps(index) for index in range(len(LENGTHS))]
    estimate = StepEstimate(LENGTHS, sum(OWN))
    assert estimate.total == sum(OWN)
    for index in range(resumed, len(LENGTHS)):
        estimate.update(index, taken[index], sum(taken[:index]))
        if index >= known_after:
            assert estimate.total == pytest.approx(sum(taken), rel=0.06), index  # steps are whole
    assert estimate.total == sum(taken)


def test_an_experience_without_training_counts(tmp_path: Path) -> None:
    logger = ConsoleLogger()
    logger.start(run_info(tmp_path))
    logger.step(step(0, STEPS))
    logger.experience(result(0))
    assert logger.estimate.total == 3 * STEPS
    nothing_more = result(1)
    object.__setattr__(nothing_more, "total_steps", STEPS)
    logger.experience(nothing_more)
    logger.close()
    assert logger.estimate.total == STEPS
    assert np.isclose(logger.progress.tasks[0].total or 0, STEPS)
