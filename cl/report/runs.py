"""Read a finished run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cl.errors import DataError
from cl.matrix import AccuracyMatrix
from cl.metrics import Matrix
from cl.report.summaries import read_summary
from cl.stored import fields, json_lines, load_yaml


@dataclass(frozen=True)
class Run:
    """The content of a run folder.

    accuracy: R, shares. experiences, steps: the events of metrics.jsonl, the last of each where an
    interrupted run did some of them twice. Both are empty where the run kept no such file.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    accuracy: Matrix
    experiences: list[dict[str, Any]]
    steps: list[dict[str, Any]]

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Raises DataError when a file is missing or damaged, or the run is not complete."""
        if not (folder / "summary.json").exists():
            raise DataError(
                f"{folder} holds no summary.json: it is no run folder, or the run is not complete."
            )
        config = fields(load_yaml(folder / "config.yaml"), folder / "config.yaml", {})
        matrix = AccuracyMatrix.read(folder / "accuracy_matrix.csv")
        summary = read_summary(folder, config, matrix)
        chosen: dict[str, dict[tuple[int, int], dict[str, Any]]] = {"experience": {}, "step": {}}
        for _, event in read_events(folder / "metrics.jsonl"):
            chosen[event["event"]][event["experience"], event.get("step", 0)] = event
        return cls(
            folder,
            config,
            summary,
            matrix.values(),
            [event for _, event in sorted(chosen["experience"].items())],
            [event for _, event in sorted(chosen["step"].items())],
        )

    def means(self) -> Matrix:
        """After each experience, the mean accuracy over the tasks seen by then."""
        return np.array([np.mean(self.accuracy[i, : i + 1]) for i in range(len(self.accuracy))])


def measured(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what the run's metrics gave; for what is undefined, the reason."""
    numbers, reasons = summary.get("metrics", {}), summary.get("undefined", {})
    return [
        (
            name.replace("_", " "),
            f"undefined: {reasons.get(name, '')}" if value is None else f"{value:.4g}",
        )
        for name, value in numbers.items()
    ]


def read_events(
    file: Path, damaged: list[int] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of metrics.jsonl and the event in each; what is no event of ours is left out.

    damaged: gets the numbers of lines that cannot be read.
    """
    counts = {"experience": ("experience",), "step": ("experience", "step", "total_steps")}
    for line, event in json_lines(file, damaged) if file.exists() else ():
        needed = counts.get(str(event.get("event")))
        if needed and all(type(event.get(name)) is int for name in needed):
            yield line, event
