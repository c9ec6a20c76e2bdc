"""Read a finished run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from cl.errors import DataError
from cl.matrix import AccuracyMatrix
from cl.metrics import Matrix


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
        try:
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
            accuracy = AccuracyMatrix.read(folder / "accuracy_matrix.csv").values()
            events = _events(folder / "metrics.jsonl")
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder} cannot be read: {error}") from None
        chosen: dict[str, dict[tuple[int, int], dict[str, Any]]] = {"experience": {}, "step": {}}
        for event in events:
            kind = chosen.get(str(event.get("event")))
            if kind is not None:
                kind[event["experience"], event.get("step", 0)] = event
        return cls(
            folder,
            config,
            summary,
            accuracy,
            [event for _, event in sorted(chosen["experience"].items())],
            [event for _, event in sorted(chosen["step"].items())],
        )

    def means(self) -> Matrix:
        """After each experience, the mean accuracy over the tasks seen by then."""
        return np.array([np.mean(self.accuracy[i, : i + 1]) for i in range(len(self.accuracy))])


def _events(file: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that a kill cut short is left out."""
    events = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
