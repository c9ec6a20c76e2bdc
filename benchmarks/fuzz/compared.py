"""Run folders that are compared or shown, and what a sweep notes of its runs."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fuzz.harness import Kind
from benchmarks.fuzz.resumed import complete
from benchmarks.toys import DATA, save_pixels
from cl.compare import COSTS, compare, to_csv
from cl.report.groups import read_jobs
from cl.report.page import write_report
from cl.report.runs import Run
from cl.sweep import varied


class Compared(Kind):
    """Run folders that are compared: one that is damaged is named."""

    file: str

    def make(self, folder: Path) -> None:
        save_pixels(folder / DATA)
        for number, overrides in enumerate((["seed=0"], ["seed=1"], ["strategy=ewc"])):
            complete(folder / "runs" / f"{number}", *overrides)

    def read(self, folder: Path) -> Any:
        return to_csv(compare([Path("runs")]))


class ComparedConfig(Compared):
    """The configuration."""

    name = "compare: config.yaml"
    files = ("runs/0/config.yaml",)


class ComparedMatrix(Compared):
    """The accuracy matrix."""

    name = "compare: accuracy_matrix.csv"
    files = ("runs/0/accuracy_matrix.csv",)


class ComparedSummary(Compared):
    """The summary."""

    name = "compare: summary.json"
    files = ("runs/0/summary.json",)

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        if without_costs(found) == without_costs(expected):
            return None  # the costs stand in the summary alone
        return super().objection(folder, expected, found, said)


def without_costs(table: str) -> list[dict[str, str]]:
    """The rows of a comparison, but for what the runs cost."""
    rows = csv.DictReader(io.StringIO(table))
    return [{k: v for k, v in row.items() if not k.startswith(COSTS)} for row in rows]


class ComparedMetrics(Compared):
    """The events, which a comparison does not need."""

    name = "compare: metrics.jsonl"
    files = ("runs/0/metrics.jsonl",)
    share = 0.5


class Reported(Kind):
    """A run folder of which a page is made."""

    name = "report"
    files = ("run/*.*",)
    share = 0.05

    def make(self, folder: Path) -> None:
        save_pixels(folder / DATA)
        complete(folder / "run")

    def read(self, folder: Path) -> Any:
        page = write_report(Path("run")).read_text()
        run = Run.load(Path("run"))
        return len(page) > 1000, run.accuracy.tobytes(), run.summary["average_accuracy"]


class Jobs(Kind):
    """What a sweep notes of its runs."""

    name = "sweep: jobs"
    files = ("sweep/jobs/*.json",)

    def make(self, folder: Path) -> None:
        save_pixels(folder / DATA)
        (folder / "sweep" / "jobs").mkdir(parents=True)
        for seed in (0, 1):
            complete(folder / "runs" / f"{seed}", f"seed={seed}")
            job = {"overrides": [f"seed={seed}"], "folder": f"../runs/{seed}", "error": None}
            (folder / "sweep" / "jobs" / f"{seed:05d}.json").write_text(json.dumps(job, indent=2))

    def read(self, folder: Path) -> Any:
        jobs = read_jobs(Path("sweep"))
        for job in jobs:
            if job["error"] is not None:  # the end of a sweep lists them
                print(job["error"], file=sys.stderr)
        runs = [job["folder"] for job in jobs if job["error"] is None]
        told = [(job["overrides"], str(job["folder"])) for job in jobs]
        return told, to_csv(compare(runs, varied(jobs))), to_csv(compare([Path("sweep")]))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        for overrides, run in found[0]:
            if not (folder / run / "config.yaml").exists():
                continue  # a run that failed may have no folder, and none is compared
            config = yaml.safe_load((folder / run / "config.yaml").read_text())
            told = dict(each.lstrip("+").split("=") for each in overrides if "=" in each)
            # What it does not know may be the name of a group.
            if "seed" in told and told["seed"].strip() != str(config["seed"]):
                return f"{run} is taken for the run of {overrides}"
        return None


KINDS_HERE = (*(ComparedConfig, ComparedMatrix, ComparedSummary, ComparedMetrics, Reported, Jobs),)
