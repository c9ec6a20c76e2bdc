"""What a sweep (-m) does besides its runs: it goes on after a failure, and compares what is complete."""

from __future__ import annotations

import os
import sys
import traceback
from math import nan
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cl.checkpoint import load_json, save_json
from cl.config import check_interpolations
from cl.data.sharing import aside
from cl.errors import PalimpsestError, shown
from cl.evaluation.optimised import optimised
from cl.experiment import Experiment, start
from cl.report.groups import check_overrides, read_jobs
from cl.resuming import packages
from cl.stopping import StoppedError

UNFINISHED = "it did not come to its end"
"""What is noted of a run while it works, and stays if its process is killed."""


def is_sweep() -> bool:
    """Whether this run is one of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def run(cfg: DictConfig) -> float:
    """Do this run of the sweep and note what becomes of it; if it fails, the others go on.

    Returns its `optimised_metric`, for a sweeper that searches; NaN if it failed.

    A signal ends the sweep, also one that comes when the run is nearly over: then the run is complete.
    """
    experiment, number = None, nan
    try:
        check_interpolations(cfg)
        experiment = begin(cfg)
        if experiment is None:
            folder = earlier()
            assert folder is not None  # complete since then
            return optimised(load_json(folder / "summary.json"), cfg.optimised_metric)
        with experiment.stop:
            number = optimised(experiment.run(), cfg.optimised_metric)
            note(experiment.folder)
    except StoppedError:
        note(experiment.folder if experiment else None, "stopped")
        raise
    except Exception as error:
        if not isinstance(error, PalimpsestError):
            traceback.print_exc()
        note(experiment.folder if experiment else None, f"{type(error).__name__}: {error}")
    if experiment is not None and experiment.stop.number:
        raise StoppedError(
            "Stopped after this run. To go on with the others: the same command with "
            f"hydra.sweep.dir={HydraConfig.get().sweep.dir}",
            experiment.stop.number,
        )
    return number


def begin(cfg: DictConfig) -> Experiment | None:
    """The experiment of this run of the sweep; None if the run is complete already.

    What an earlier attempt left unfinished goes on: a job that its cluster has queued again, or a sweep that
    is started once more with the same choices and the same hydra.sweep.dir.
    """
    folder = earlier()
    if folder is not None and (folder / "summary.json").exists():
        note(folder)  # the attempt may have been killed before it could
        return None
    if folder is not None and (folder / "config.yaml").exists():
        experiment = Experiment.resume(folder, trust=[*cfg.trust, *packages(cfg)])
    else:
        experiment = start(cfg)
    note(experiment.folder, UNFINISHED)
    return experiment


def earlier() -> Path | None:
    """The folder of this very run from an earlier attempt at the sweep."""
    job = HydraConfig.get()
    same = [j for j in read_jobs(Path(job.sweep.dir)) if j["overrides"] == job.overrides.task]
    return same[0]["folder"] if same else None


def note(folder: Path | None, error: str | None = None) -> None:
    """Write down what became of this run of the sweep; the runs may be on several machines."""
    job = HydraConfig.get()
    jobs = Path(job.sweep.dir) / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    content = {
        "overrides": list(job.overrides.task),
        "folder": None if folder is None else os.path.relpath(folder, jobs.parent),
        "error": error,
    }
    file = jobs / f"{int(job.job.num):05d}.json"
    beside = aside(file)  # the same sweep may have been started twice
    save_json(content, beside)
    beside.replace(file)


def end(folder: Path) -> None:
    """List what failed; compare the rest, and write the comparison into the folder of the sweep."""
    try:
        jobs = read_jobs(folder)
    except PalimpsestError as error:
        sys.exit(f"error: {error}")
    bad = [job for job in jobs if job["error"] is not None]
    runs = [job["folder"] for job in jobs if job["error"] is None]
    damaged = len(runs) > 1 and not _compare(runs, jobs, folder)
    if bad:
        print(f"{len(bad)} of {len(jobs)} runs failed:", file=sys.stderr)
        for job in bad:
            print(f"  {shown(' '.join(job['overrides']))}\n    {job['error']}", file=sys.stderr)
    if bad or damaged:
        sys.exit(1)  # the status of the whole sweep


def _compare(runs: list[Path], jobs: list[dict[str, Any]], folder: Path) -> bool:
    """Compare the runs of a sweep; whether all of them could be read."""
    from cl.compare import compare, show_on_console, write  # with the plots: no single run needs it

    try:
        compared = compare(runs, varied(jobs))
        show_on_console(compared)
        write(compared, folder)
    except (PalimpsestError, OSError) as error:
        print(f"no comparison of this sweep: {error}", file=sys.stderr)
        return True
    print(f"The comparison is in {folder}")
    return not compared.left_out


def varied(jobs: list[dict[str, Any]]) -> list[str]:
    """The keys, other than the seed, that the runs of a sweep differ in; the strategy if there is none.

    DataError if what was noted of a run is not what its own configuration says.
    """
    values: dict[str, set[str]] = {}
    for job in jobs:
        check_overrides(job)
        for override in job["overrides"]:
            key, _, value = override.partition("=")
            values.setdefault(key.lstrip("+~"), set()).add(value)
    keys = [key for key, seen in values.items() if len(seen) > 1 and key != "seed"]
    return keys or ["strategy"]
