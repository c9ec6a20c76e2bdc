"""The one number that a run returns, for sweepers that search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cl.errors import require, suggest
from cl.loggers.base import flatten
from cl.metrics import summarise

COSTS = ("seconds", "trainable_parameters", "stored_numbers", "peak_memory_bytes")


def check_optimised(key: str) -> None:
    """Raise ConfigurationError if no run has such a number; those of metrics are known at the end only."""
    accuracies = list(summarise(np.eye(1)))
    names = [*accuracies, *COSTS, *(f"within_task.{name}" for name in accuracies)]
    require(
        key in names or key.startswith("metrics."),
        f"optimised_metric={key}: there is no such number. {suggest(key, names)} "
        "Those of metrics are written metrics.calibration_error.",
    )


def optimised(summary: Mapping[str, Any], key: str) -> float:
    """The number of summary.json at a dotted key; NaN if it is undefined."""
    numbers: dict[str, Any] = {
        name: value
        for name, value in flatten(dict(summary)).items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }
    require(key in numbers, f"optimised_metric={key}: it was not measured. {suggest(key, numbers)}")
    return math.nan if numbers[key] is None else float(numbers[key])
