"""The run folder: metrics.jsonl, accuracy_matrix.csv and summary.json."""

from __future__ import annotations

import json
from typing import Any, TextIO

from cl.checkpoint import save_json
from cl.loggers.base import ExperienceResult, Logger, RunInfo


class FileLogger(Logger):
    """Appends one JSON object per event to metrics.jsonl, and writes summary.json at the end."""

    def start(self, run: RunInfo) -> None:
        self.folder = run.folder
        self.metrics: TextIO = (run.folder / "metrics.jsonl").open("a", encoding="utf-8")

    def step(self, values: dict[str, float]) -> None:
        self._write({"event": "step", **values})

    def experience(self, result: ExperienceResult) -> None:
        row = result.accuracy[result.index, : result.index + 1]
        within = result.accuracy_within_task[result.index, : result.index + 1]
        self._write(
            {
                "event": "experience",
                "experience": result.index,
                "accuracy": [float(value) for value in row],
                "accuracy_within_task": [float(value) for value in within],
                "average_accuracy": float(row.mean()),
                **result.logged,
                "training_seconds": result.training_seconds,
                "evaluation_seconds": result.evaluation_seconds,
                "trainable_parameters": result.trainable_parameters,
                "stored_numbers": result.stored_numbers,
            }
        )

    def finish(self, summary: dict[str, Any]) -> None:
        save_json(summary, self.folder / "summary.json")

    def close(self) -> None:
        self.metrics.close()

    def _write(self, event: dict[str, Any]) -> None:
        self.metrics.write(json.dumps(event) + "\n")
        self.metrics.flush()
