"""The events of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cl.metrics import Matrix, summarise
from cl.stream import Stream


@dataclass(frozen=True)
class RunInfo:
    """What is known when a run starts, or goes on.

    config: resolved, as plain containers. trainable_steps: of the whole run. experiences_done, steps_done:
    by an earlier process, if the run goes on.
    """

    folder: Path
    config: dict[str, Any]
    names: dict[str, str]
    pretrained: str
    stream: Stream
    trainable_steps: int
    experiences_done: int = 0
    steps_done: int = 0

    @property
    def experiences(self) -> int:
        """How many experiences the stream has."""
        return len(self.stream)


@dataclass(frozen=True)
class ExperienceResult:
    """What one experience gave.

    accuracy, accuracy_within_task: R so far, shares. logged: what the methods reported, such as the
    overlap of subspaces. total_steps: of the optimiser, since the run began. peak_memory_bytes: so far;
    None where it is unknown. sequential: as the strategy says. measured: what the run's metrics gave,
    None for what is undefined.
    """

    index: int
    classes: list[str]
    accuracy: Matrix
    accuracy_within_task: Matrix
    logged: dict[str, float]
    total_steps: int
    training_seconds: float
    evaluation_seconds: float
    trainable_parameters: int
    stored_numbers: int
    peak_memory_bytes: int | None
    sequential: bool = True
    measured: Mapping[str, float | None] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """The metrics of the rows so far, by name, as far as they are defined."""
        found = {**summarise(self.accuracy, sequential=self.sequential), **self.measured}
        return {name: value for name, value in found.items() if value is not None}

    def costs(self) -> dict[str, float]:
        """Time, size and memory, by name, as far as they are known."""
        names = ("training_seconds", "evaluation_seconds", "trainable_parameters", "stored_numbers")
        costs = {name: getattr(self, name) for name in names}
        if self.peak_memory_bytes is not None:
            costs["peak_memory_bytes"] = self.peak_memory_bytes
        return costs


class Logger:
    """Told of the events of a run, in this order; each method does nothing unless overridden.

    What a logger raises stops no run (`cl.loggers.shield`). essential: it writes the run's own files, so a
    full disk stops the run until there is room.
    """

    essential = False

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


def series_of_step(values: dict[str, float]) -> dict[str, float]:
    """Of the values of a step those to draw: the loss, its parts, the learning rate and the speed."""
    counters = ("experience", "step", "steps", "total_steps")
    return {name: value for name, value in values.items() if name not in counters}


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with the keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
