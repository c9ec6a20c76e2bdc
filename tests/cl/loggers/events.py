"""The events of a small made-up run, told to a logger without any training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from cl.checkpoint import save_json
from cl.loggers import ExperienceResult, Logger, RunInfo
from cl.metrics import Matrix, summarise
from tests.conftest import toy_stream

R = np.array([[0.9, np.nan, np.nan], [0.7, 0.8, np.nan], [0.6, 0.5, 1.0]])
STEPS = 10


def run_info(folder: Path, names: dict[str, str] | None = None) -> RunInfo:
    names = names or {"stream": "toy", "strategy": "test", "backbone": "nano"}
    config: dict[str, Any] = {"seed": 3, "strategy": {"_target_": "a.B", "strength": 0.5}}
    return RunInfo(folder, config, names, "nano, 1.0", toy_stream(tasks=3, classes=6), 3 * STEPS)


def result(index: int, accuracy: Matrix = R) -> ExperienceResult:
    part = accuracy[: index + 1, : index + 1]
    return ExperienceResult(
        index=index,
        classes=[f"class {2 * index}", f"class {2 * index + 1}"],
        accuracy=part,
        accuracy_within_task=part,
        logged={"overlap": 0.25 * index},
        total_steps=STEPS * (index + 1),
        training_seconds=2.0 + index,
        evaluation_seconds=1.0,
        trainable_parameters=100,
        stored_numbers=1000 * (index + 1),
        peak_memory_bytes=2**20 * (index + 1),
    )


def step(index: int, number: int) -> dict[str, float]:
    return {
        "experience": index,
        "step": number,
        "steps": STEPS,
        "total_steps": STEPS * index + number,
        "images_per_second": 100.0,
        "lr": 1e-3,
        "loss": 2.0 / number,
        "cross_entropy": 1.5 / number,
        "penalty": 0.5 / number,
    }


def summary() -> dict[str, Any]:
    return {
        "names": {"stream": "toy", "strategy": "test", "backbone": "nano"},
        "seed": 3,
        **summarise(R),
        "within_task": summarise(R),
        "seconds": 12.0,
        "trainable_parameters": 100,
        "stored_numbers": 3000,
        "peak_memory_bytes": 3 * 2**20,
        "pretrained": "nano, 1.0",
        "stream_fingerprint": "0123456789abcdef",
        "date": "2026-01-01T12:00:00+00:00",
        "versions": {"torch": "2.10"},
        "hardware": {"device": "cpu", "cpu": "a processor", "cores": 2, "threads": 1},
        "git_revision": None,
    }


def tell(logger: Logger, folder: Path, first: int = 0, last: int = 2, finish: bool = True) -> None:
    """The events of the experiences `first` … `last`."""
    done = {"experiences_done": first, "steps_done": first * STEPS}
    logger.start(dataclasses.replace(run_info(folder), **done))
    for index in range(first, last + 1):
        for number in (5, STEPS):
            logger.step(step(index, number))
        logger.experience(result(index))
    if finish:
        save_json(summary(), folder / "summary.json")  # as the experiment does
        logger.finish(summary())
    logger.close()
