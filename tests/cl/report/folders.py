"""Run folders without runs: what a comparison reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from cl.evaluation import AccuracyMatrix, Cell
from cl.metrics import summarise


def make_run(
    root: Path,
    strategy: str,
    seed: int,
    last: float,
    config: dict[str, Any] | None = None,
    **summary: Any,
) -> Path:
    """Two tasks of 1000 images: 90 % learnt on both, `last` left of the first at the end."""
    folder = root / strategy / f"{len(list(root.glob('*/*')))}-seed{seed}"
    folder.mkdir(parents=True)
    cells = [Cell(0, 0, 1000, 900, 900), Cell(1, 0, 1000, round(1000 * last), 1000)]
    matrix = AccuracyMatrix([*cells, Cell(1, 1, 1000, 900, 900)])
    (folder / "accuracy_matrix.csv").write_text(matrix.to_csv())
    content = {
        "seed": seed,
        "output": str(root),
        "strategy": {"_target_": f"strategies.{strategy}", "rank": 8},
        "stream": {"_target_": "streams.toy", "tasks": 2},
        "backbone": {"name": "nano"},
        "trainer": {"lr": 0.1, "device": "cpu"},
        "plugin": {},
    }
    OmegaConf.save(OmegaConf.merge(content, config or {}), folder / "config.yaml")
    whole = {
        "names": {"stream": "toy", "strategy": strategy, "backbone": "nano"},
        "seed": seed,
        **summarise(np.array(matrix.values())),
        "within_task": summarise(np.array(matrix.values(within_task=True))),
        "seconds": 10.0 + seed,
        "trainable_parameters": 1000,
        "stored_numbers": 2000,
        "pretrained": "nano, 1.0",
        "stream_fingerprint": "abc",
        "date": "2026-01-01T00:00:00+00:00",
        **summary,
    }
    (folder / "summary.json").write_text(json.dumps(whole))
    return folder


def make_sweep(root: Path) -> None:
    """Three seeds of two strategies; average accuracies 0.55, 0.60, 0.65 and 0.80, 0.82, 0.90."""
    for seed, (naive, olora) in enumerate(((0.2, 0.7), (0.3, 0.74), (0.4, 0.9))):
        make_run(root, "naive", seed, naive)
        make_run(root, "olora", seed, olora)
