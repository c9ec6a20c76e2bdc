"""All loggers of a run as one, whose failures stop no training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from cl.guards import refusal
from cl.loggers.base import ExperienceResult, Logger, RunInfo


class Shielded(Logger):
    """Tells every logger of each event; the first failure of a logger is a warning, later ones are silent.

    A logger that could not start is told nothing more but `close`; another one is told what follows.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = list(loggers)
        self.unstarted: list[Logger] = []
        self.failed: list[Logger] = []

    def start(self, run: RunInfo) -> None:
        self.folder = run.folder
        self._tell("start", run)

    def step(self, values: dict[str, float]) -> None:
        self._tell("step", values)

    def experience(self, result: ExperienceResult) -> None:
        self._tell("experience", result)

    def finish(self, summary: dict[str, Any]) -> None:
        self._tell("finish", summary)

    def close(self) -> None:
        self._tell("close")

    def _tell(self, event: str, *content: Any) -> None:
        for logger in self.loggers:
            if logger in self.unstarted and event != "close":
                continue
            try:
                getattr(logger, event)(*content)
            except Exception as error:
                if logger.essential and refusal(error, self.folder):
                    raise
                self._warn(logger, event, error)

    def _warn(self, logger: Logger, event: str, error: Exception) -> None:
        if event == "start":
            self.unstarted.append(logger)
        if logger in self.failed:
            return
        self.failed.append(logger)
        what = str(error).strip().partition("\n")[0]
        print(
            f"{type(logger).__name__} failed in `{event}` ({type(error).__name__}: {what}). "
            "The run goes on; what this logger shows may lack something.",
            file=sys.stderr,
        )
