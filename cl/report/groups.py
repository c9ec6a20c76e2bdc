"""Runs that differ only in their seed, and what can be said of them together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cl.config import covered
from cl.errors import ConfigurationError, DataError, PalimpsestError, require, shown, suggest
from cl.metrics import Matrix
from cl.report.runs import Run
from cl.stored import fields, load_json, load_yaml

IGNORED = (
    "seed",
    "output",
    "resume",
    "trust",
    "logger",
    "metric",
    "evaluation",
    "optimised_metric",
    "names",
    "trainer.device",
    "cache",
    "trainer.checkpoint",
    "trainer.checkpoint_minutes",
    "trainer.quiet",
    "trainer.evaluation_batch_size",
)
"""Configuration keys that may differ between runs that are averaged: they do not change what is measured."""

FOUND = ("stream_fingerprint", "stream_contents", "pretrained")
"""What a run found in place of its configuration, in summary.json."""

SHARED = ("stream", "backbone", *FOUND)
"""What must be the same in all runs of a comparison, unless the comparison is by it."""

SECTIONS = {"stream", "strategy", "backbone", "trainer", "seed"}
"""What every configuration has; one without them was cut short."""

CONFIDENCE = 0.95

OVERRIDE = re.compile(r"\+{0,2}[^=~+\s]+=.*|~[^=~+\s]+(=.*)?", re.DOTALL)
"""key=value, and what adds or removes a key."""


@dataclass(frozen=True)
class Group:
    """Runs with the same values of the keys that a comparison is by; one run per seed, ordered by seed."""

    name: str
    runs: tuple[Run, ...]

    def values(self, metric: str) -> Matrix:
        """The metric of each run; NaN where it is undefined."""
        found = [lookup(run.summary, metric) for run in self.runs]
        return np.array([np.nan if value is None else float(value) for value in found])

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return [int(run.summary["seed"]) for run in self.runs]


@dataclass(frozen=True)
class Statistic:
    """Mean and standard deviation (ddof = 1; NaN for a single run) of n runs."""

    mean: float
    deviation: float
    n: int

    @classmethod
    def of(cls, values: Matrix) -> Statistic:
        """Of the values that are defined."""
        defined = values[~np.isnan(values)]
        n = len(defined)
        mean = float(defined.mean()) if n else float("nan")
        return cls(mean, float(defined.std(ddof=1)) if n > 1 else float("nan"), n)


@dataclass(frozen=True)
class Difference:
    """Mean of the paired differences to a baseline, and half the width of its confidence interval.

    Pairs are runs of the same seed; n counts them. The interval is Student's, with n − 1 degrees of
    freedom; NaN below two pairs.
    """

    mean: float
    half_width: float
    n: int

    @classmethod
    def between(cls, group: Group, baseline: Group, metric: str) -> Difference:
        """group − baseline."""
        ours = dict(zip(group.seeds, group.values(metric), strict=True))
        theirs = dict(zip(baseline.seeds, baseline.values(metric), strict=True))
        pairs = Statistic.of(np.array([ours[s] - theirs[s] for s in ours if s in theirs]))
        if pairs.n < 2:
            return cls(pairs.mean, float("nan"), pairs.n)
        from scipy.stats import t as student  # it takes a second, and few comparisons need it

        quantile = float(student.ppf(0.5 + CONFIDENCE / 2, pairs.n - 1))
        return cls(pairs.mean, quantile * pairs.deviation / float(np.sqrt(pairs.n)), pairs.n)


@dataclass(frozen=True)
class Found:
    """What lies in and below some folders. damaged: what cannot be read, and why."""

    complete: dict[Path, Run] = field(default_factory=dict)
    incomplete: set[Path] = field(default_factory=set)
    damaged: dict[Path, str] = field(default_factory=dict)


def find_runs(paths: Iterable[Path]) -> Found:
    """The runs in or below the folders.

    The folder of a sweep, and one of several sweeps, stands for their runs, wherever these are.
    """
    found = Found()
    for path in paths:
        if not path.is_dir():
            raise DataError(f"{path}: there is no such folder.")
        for folder in [*_below(path), *_of_sweeps(path, found.damaged)]:
            try:
                if not (folder / "summary.json").exists():
                    found.incomplete.add(folder)
                elif folder.resolve() not in found.complete:
                    found.complete[folder.resolve()] = read_run(folder)
            except (PalimpsestError, OSError) as error:
                found.damaged[folder.resolve()] = str(error)
    return found


def read_run(folder: Path) -> Run:
    """The run in a folder, with what a comparison needs; DataError if a file is missing or damaged."""
    try:
        run = Run.load(folder)
        _check_contents(run)
    except PalimpsestError:
        raise
    except Exception as error:  # whatever the parsers say of a damaged file
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{folder} cannot be read: {type(error).__name__}: {reason}") from None
    return run


def _check_contents(run: Run) -> None:
    """Raise DataError unless the summary names the run, and the matrix holds shares."""
    names = run.summary["names"]
    shares = run.accuracy[~np.isnan(run.accuracy)]
    sound = {
        "names": names.keys() >= {"stream", "strategy", "backbone"}
        and all(isinstance(name, str) for name in names.values()),
        "config.yaml": run.config.keys() >= SECTIONS,
        "accuracy_matrix.csv": bool(((shares >= 0) & (shares <= 1)).all()),
    }
    bad = [name for name, good in sound.items() if not good]
    if bad:
        raise DataError(f"{run.folder} cannot be read: {' and '.join(bad)} cannot be as stored.")


def _below(path: Path) -> list[Path]:
    """The run folders in or below a folder, also those of which a file is missing."""
    files = (file for name in ("config.yaml", "summary.json") for file in path.rglob(name))
    found = sorted({file.parent for file in files})
    return [f for f in found if not {"wandb", "checkpoints"} & set(f.relative_to(path).parts)]


def read_jobs(sweep: Path) -> list[dict[str, Any]]:
    """What a sweep noted of its runs, in order: overrides, error and folder, as a path from here."""
    return [read_job(file) for file in sorted(sweep.glob("jobs/*.json"))]


def read_job(file: Path) -> dict[str, Any]:
    """What a sweep noted of one run; PalimpsestError if the file is damaged."""
    job = fields(
        load_json(file), file, {"overrides": list, "folder": str | None, "error": str | None}
    )
    if not all(isinstance(each, str) and OVERRIDE.fullmatch(each) for each in job["overrides"]):
        raise DataError(f"{file} is damaged: its overrides are not what can be typed.")
    if job["folder"] is None and job["error"] is None:
        raise DataError(f"{file} is damaged: a run without an error has a folder.")
    job["error"] = job["error"] and shown(job["error"], keep="\n")
    if job["folder"] is not None:  # it is noted as seen from the sweep, so that both can move
        job["folder"] = Path(os.path.normpath(file.parents[1] / job["folder"]))
    return job


def check_overrides(job: Mapping[str, Any]) -> None:
    """Raise DataError if a job's run has another plain value in its configuration than was typed for it."""
    file = Path(job["folder"] or ".") / "config.yaml"
    if job["folder"] is None or not file.exists():
        return
    config = fields(load_yaml(file), file, {})
    for override in job["overrides"]:
        key, _, text = override.partition("=")
        node: Any = config
        for part in key.lstrip("+").split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if type(node) in (int, float, bool) and "$" not in text and text != str(node):
            told = _plain_value(text)
            if told != node:
                raise DataError(f"{file} says {key}={node}, and its sweep noted {override}.")


def _plain_value(text: str) -> Any:
    """A number or true or false as it is typed; None for all else."""
    with suppress(ValueError):
        return float(text)
    return {"true": True, "false": False}.get(text.strip().lower())


def _of_sweeps(path: Path, damaged: dict[Path, str]) -> list[Path]:
    """The run folders of the sweeps in or below a folder; those that are gone are left out."""
    folders = []
    for file in sorted(path.rglob("jobs/*.json")):
        try:
            folders.append(read_job(file)["folder"])
        except PalimpsestError as error:
            damaged[file] = str(error)
    return [folder for folder in folders if folder is not None and folder.is_dir()]


def group_runs(runs: Sequence[Run], by: Sequence[str]) -> list[Group]:
    """The runs grouped by the values of the keys `by`; of two runs of one seed the later one is taken."""
    found: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: str(run.summary["date"])):
        name = ", ".join(_label(run, key) for key in by)
        found.setdefault(name, {})[int(run.summary["seed"])] = run
    return [
        Group(name, tuple(r for _, r in sorted(seeds.items()))) for name, seeds in found.items()
    ]


def check_comparable(groups: Sequence[Group], by: Sequence[str], allow: Sequence[str] = ()) -> None:
    """Raise ConfigurationError, naming the keys, when runs to be averaged or compared are not alike."""
    for group in groups:
        for first, second in combinations(group.runs, 2):
            keys = [key for key in differences(first, second) if not covered(key, allow)]
            _refuse(f"The runs of {group.name} cannot be averaged", first, second, keys)
    for first_group, second_group in combinations(groups, 2):
        first, second = first_group.runs[0], second_group.runs[0]
        keys = [
            key
            for key in differences(first, second)
            if covered(key, SHARED) and not covered(key, [*_with_fingerprint(by), *allow])
        ]
        what = f"{first_group.name} and {second_group.name} cannot be compared"
        _refuse(what, first, second, keys)


def differences(first: Run, second: Run) -> list[str]:
    """The keys in which two runs differ, apart from those that do not change what is measured."""
    a, b = _facts(first), _facts(second)
    if not (a["stream_contents"] and b["stream_contents"]):  # runs of older versions have none
        a["stream_contents"] = b["stream_contents"]
    keys = sorted(a.keys() | b.keys())
    return [key for key in keys if a.get(key) != b.get(key) and not covered(key, IGNORED)]


def lookup(content: Mapping[str, Any], dotted: str) -> Any:
    """The number in a summary at a dotted path such as "within_task.forgetting"; None if undefined."""
    node: Any = content
    for depth, part in enumerate(dotted.split(".")):
        if not isinstance(node, Mapping) or part not in node:
            where = ".".join(dotted.split(".")[:depth])
            names = _numbers(content)
            raise ConfigurationError(
                f"--metric {dotted}: {where or 'the summary'} has no {part}. {suggest(dotted, names)}"
            )
        node = node[part]
    number = node is None or (isinstance(node, (int, float)) and not isinstance(node, bool))
    require(number, f"--metric {dotted} is not a number. {suggest(dotted, _numbers(content))}")
    return node


def _numbers(content: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            names += _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)):
            names.append(f"{prefix}{key}")
    return names


def _refuse(what: str, first: Run, second: Run, keys: Sequence[str]) -> None:
    if not keys:
        return
    a, b = _facts(first), _facts(second)
    told = "\n".join(f"  {key}: {a.get(key)} and {b.get(key)}" for key in keys[:10])
    settings = [key for key in keys if key not in FOUND]
    by = f"Group by what differs (--by strategy,{settings[0]}), or, if" if settings else "If"
    raise ConfigurationError(
        f"{what}; they differ in\n{told}\n{by} it is meant to differ, say "
        f"--allow {','.join(keys)}.\n  {first.folder}\n  {second.folder}"
    )


def _label(run: Run, key: str) -> str:
    names = run.summary["names"]
    if key in names:
        return str(names[key])
    facts = _facts(run)
    section = run.config.get(key)
    if isinstance(section, dict):  # the plugins, for example
        return " + ".join(section) or f"no {key}"
    if key not in facts:
        near = suggest(key, [*names, *facts])
        raise ConfigurationError(f"--by {key}: {run.folder} has no such key. {near}")
    return f"{key}={facts[key]}"


def _facts(run: Run) -> dict[str, Any]:
    """The configuration as dotted keys, and what the run found in place of it."""
    facts: dict[str, Any] = {}

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, Mapping) and value:
                walk(value, f"{prefix}{key}.")
            else:
                facts[f"{prefix}{key}"] = value

    walk(run.config, "")
    for key in FOUND:
        facts[key] = run.summary.get(key)
    for change in run.summary.get("changes", ()):  # it was one thing first, then another
        since = f"from experience {change['experience']}, step {change['step']}"
        facts[change["key"]] = f"{facts.get(change['key'])}, {since} (before: {change['before']})"
    return facts


def _with_fingerprint(by: Sequence[str]) -> list[str]:
    """A comparison by streams or backbones is also by what these bring with them."""
    more = (
        ["stream_fingerprint", "stream_contents"]
        if any(covered(key, ["stream"]) for key in by)
        else []
    )
    more += ["pretrained"] if any(covered(key, ["backbone"]) for key in by) else []
    return [*by, *more]
