"""What a sweep (-m) does besides its runs: it goes on after a failure, and compares what is complete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from cl.checkpoint import load_json, save_json
from cl.compare import compare, show_on_console, write
from cl.errors import PalimpsestError

failed = 0
"""How many runs of the last sweep of this process failed."""


def is_sweep() -> bool:
    """Whether this run is one of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def note(folder: Path | None, error: str | None = None) -> None:
    """Write down what became of this run of the sweep; the runs may be on several machines."""
    job = HydraConfig.get()
    jobs = Path(job.sweep.dir) / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    content = {
        "overrides": list(job.overrides.task),
        "folder": None if folder is None else str(folder),
        "error": error,
    }
    save_json(content, jobs / f"{int(job.job.num):05d}.json")


class SweepEnd(Callback):
    """Hydra calls it when all runs of a sweep are over."""

    def on_multirun_end(self, config: DictConfig, **more: Any) -> None:
        """List what failed; compare the rest, and write the comparison into the sweep folder."""
        global failed
        folder = Path(config.hydra.sweep.dir)
        jobs = [load_json(file) for file in sorted((folder / "jobs").glob("*.json"))]
        bad = [job for job in jobs if job["error"] is not None]
        failed = len(bad)
        runs = [Path(job["folder"]) for job in jobs if job["error"] is None]
        if len(runs) > 1:
            try:
                compared = compare(runs, varied(jobs))
                show_on_console(compared)
                write(compared, folder)
                print(f"The comparison is in {folder}")
            except PalimpsestError as error:
                print(f"no comparison of this sweep: {error}", file=sys.stderr)
        if bad:
            print(f"{failed} of {len(jobs)} runs failed:", file=sys.stderr)
            for job in bad:
                print(f"  {' '.join(job['overrides'])}\n    {job['error']}", file=sys.stderr)


def varied(jobs: list[dict[str, Any]]) -> list[str]:
    """The keys, other than the seed, that the runs of a sweep differ in; the strategy if there is none."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for override in job["overrides"]:
            key, _, value = override.partition("=")
            values.setdefault(key.lstrip("+~"), set()).add(value)
    keys = [key for key, seen in values.items() if len(seen) > 1 and key != "seed"]
    return keys or ["strategy"]
