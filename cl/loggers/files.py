"""Files in the run folder for people to read and to draw: metrics.jsonl and report.html."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from cl.checkpoint import replace_text
from cl.loggers.base import ExperienceResult, Logger, RunInfo
from cl.loggers.earlier import earlier_events


class FileLogger(Logger):
    """Appends one JSON object per event to metrics.jsonl; at the end writes report.html.

    report: false leaves the page out.
    """

    essential = True

    def __init__(self, report: bool = True) -> None:
        self.report = report

    def start(self, run: RunInfo) -> None:
        self.folder, self.stream = run.folder, run.stream
        file = run.folder / "metrics.jsonl"
        if file.exists() or run.experiences_done:
            replace_text(file, "".join(f"{line}\n" for line in earlier_events(file, run)))
        self.metrics: TextIO = file.open("a", encoding="utf-8")

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
                "metrics": dict(result.measured),
                **result.logged,
                **result.costs(),
            }
        )

    def finish(self, summary: dict[str, Any]) -> None:
        if not self.report:
            return
        try:
            from cl.report.page import write_report  # matplotlib is for the end of a run

            write_report(self.folder, self.stream)
        except Exception as error:  # the run is complete whatever becomes of its page
            print(f"report.html could not be written: {error!r}", file=sys.stderr)

    def close(self) -> None:
        if hasattr(self, "metrics"):
            self.metrics.close()

    def _write(self, event: dict[str, Any]) -> None:
        self.metrics.write(json.dumps(event) + "\n")
        self.metrics.flush()
