"""The events that an earlier process of a run wrote: what may be true is kept, and the rest is told."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from cl.errors import DataError
from cl.loggers.base import RunInfo
from cl.matrix import AccuracyMatrix
from cl.report.runs import read_events


def earlier_events(file: Path, run: RunInfo) -> list[str]:
    """The lines of metrics.jsonl from before the point where the run goes on, each event once, in order.

    What came later is going to happen again. An experience of which the matrix says another thing, or whose
    event is missing, is told on the console, and so are lines that cannot be read.
    """
    damaged: list[int] = []
    found: dict[tuple[int, int, int], str] = {}
    try:
        rows = AccuracyMatrix.read(run.folder / "accuracy_matrix.csv", run.experiences_done)
        for line, event in read_events(file, damaged):
            if event["event"] == "step":
                if event["total_steps"] <= run.steps_done:
                    found[event["experience"], 0, event["step"]] = line
            elif _fits(event, rows):
                found[event["experience"], 1, 0] = line
    except DataError as error:
        print(f"{error} Its events are left out.", file=sys.stderr)
        return []
    lost = [str(i) for i in range(run.experiences_done) if (i, 1, 0) not in found]
    if lost:
        print(
            f"{file} lacks what was told of experience {', '.join(lost)}, or the matrix says another thing. "
            "The matrix holds; the rest is lost.",
            file=sys.stderr,
        )
    if damaged:
        print(f"{file}: line {', '.join(map(str, damaged))} cannot be read.", file=sys.stderr)
    return [line for _, line in sorted(found.items())]


def _fits(event: dict[str, Any], matrix: AccuracyMatrix) -> bool:
    """Whether the event of an experience is of one in the matrix, and has its accuracies."""
    index = event["experience"]
    if not 0 <= index < matrix.rows:
        return False
    own = [cell for cell in matrix.row(index) if cell.task <= cell.experience]
    told = {
        "accuracy": [cell.accuracy for cell in own],
        "accuracy_within_task": [cell.accuracy_within_task for cell in own],
    }
    told["average_accuracy"] = [sum(told["accuracy"]) / len(own)]
    for name, values in told.items():
        found = event.get(name)
        found = found if isinstance(found, list) else [found]
        if len(found) != len(values) or not all(map(_alike, found, values)):
            return False
    return True


def _alike(found: Any, value: float) -> bool:
    return type(found) in (int, float) and math.isclose(found, value, abs_tol=1e-9)
