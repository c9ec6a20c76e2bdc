"""The events of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl.metrics import Matrix


@dataclass(frozen=True)
class RunInfo:
    """What is known when a run starts. config: resolved, as plain containers."""

    folder: Path
    config: dict[str, Any]
    names: dict[str, str]
    pretrained: str
    experiences: int
    trainable_steps: int


@dataclass(frozen=True)
class ExperienceResult:
    """What one experience gave.

    accuracy, accuracy_within_task: R so far, shares. logged: what the methods reported, such as the
    overlap of subspaces. seconds: training and evaluation, in that order.
    """

    index: int
    classes: list[str]
    accuracy: Matrix
    accuracy_within_task: Matrix
    logged: dict[str, float]
    training_seconds: float
    evaluation_seconds: float
    trainable_parameters: int
    stored_numbers: int


class Logger:
    """Told of the events of a run, in this order; each method does nothing unless overridden."""

    def start(self, run: RunInfo) -> None:
        """The run begins."""

    def step(self, values: dict[str, float]) -> None:
        """Some steps of the optimisation are done: experience, step, steps, lr, loss and its parts."""

    def experience(self, result: ExperienceResult) -> None:
        """An experience was learnt and evaluated."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The run is complete."""

    def close(self) -> None:
        """The run is over, complete or not."""
