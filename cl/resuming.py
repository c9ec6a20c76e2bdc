"""Going on with a run: which one is meant, and where it stands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cl.changes import BESIDE, SEARCHED, changes_since, differences, noted, plain
from cl.checkpoint import check_seal, is_count, load_json
from cl.config import HARMLESS, LATER, covered
from cl.data.cache import create_cache
from cl.errors import ConfigurationError, DataError, PalimpsestError, WeightsError, explained
from cl.learner import Learner
from cl.learner_file import FILES, read_description
from cl.matrix import AccuracyMatrix
from cl.midway import TENSORS, VALUES, load_midway
from cl.run_folder import Checkpoints, load_run_config, load_run_id, runs_folder

BETWEEN = (*FILES, "progress.json")
MIDWAY = (TENSORS, VALUES, "progress.json")
"""What the seals of the two kinds of checkpoints must cover."""


@dataclass
class Standing:
    """Where a run stands; what a checkpoint holds of it is in its progress.json.

    run: the id of the run; None for a run of a version that gave none. changes: what was changed when the
    run was resumed: key, before, after, experience and step from which on it holds, date. midway: a
    checkpoint inside the experience that comes next, steps_midway of which are done; should it turn out to be
    of no use, before_midway says where the run stands without it. checkpoint: the newest of both
    kinds.
    """

    run: str | None = None
    learner: Learner | None = None
    matrix: AccuracyMatrix = field(default_factory=AccuracyMatrix)
    seconds: float = 0.0
    steps: int = 0
    changes: list[dict[str, Any]] = field(default_factory=list)
    midway: Path | None = None
    steps_midway: int = 0
    before_midway: Callable[[], Standing] | None = None
    checkpoint: Path | None = None


def find_standing(
    folder: Path, cfg: DictConfig, trust: Sequence[str], passed_over: Sequence[Path] = ()
) -> Standing:
    """Where the run in `folder` goes on: after its last checkpoint that is whole and its own.

    passed_over: checkpoints that have turned out to be of no use.

    What is passed over is said. A ConfigurationError if `cfg` is not what the checkpoints were made with.
    """
    standing = Standing(load_run_id(folder))
    between = Checkpoints(folder).between()
    for checkpoint in reversed(between):
        try:
            _take_between(standing, checkpoint, folder, cfg, trust)
            break
        except (WeightsError, DataError) as error:
            print(f"{error} The checkpoint before it is taken.", file=sys.stderr)
    else:
        if between:
            print("There is none before it: the run begins again.", file=sys.stderr)
    for checkpoint in reversed(Checkpoints(folder).midway(standing.matrix.rows)):
        if checkpoint in passed_over:
            continue
        try:
            _take_midway(standing, checkpoint, cfg)
            without = [*passed_over, checkpoint]
            standing.before_midway = partial(find_standing, folder, cfg, trust, without)
            break
        except WeightsError as error:
            print(f"{error} The checkpoint before it is taken.", file=sys.stderr)
    return standing


def _take_between(
    standing: Standing, checkpoint: Path, folder: Path, cfg: DictConfig, trust: Sequence[str]
) -> None:
    check_seal(checkpoint, BETWEEN)
    progress = read_progress(checkpoint, standing.run)
    rows = int(checkpoint.name)
    matrix = AccuracyMatrix.read(folder / "accuracy_matrix.csv", rows)
    check_matrix(progress, matrix, checkpoint)
    # The checkpoint of an older version has no config.
    recorded = progress.get("config") or read_description(checkpoint)["recipe"]
    changes = changes_since(recorded, cfg, checkpoint)
    trainer: Any = OmegaConf.to_container(cfg.trainer)
    learner = Learner.load(checkpoint, trust, trainer)
    if learner.experiences != rows:
        raise WeightsError(
            f"{checkpoint} holds a learner after {learner.experiences} experiences, not after {rows}."
        )
    learner.model.cache = create_cache(cfg.cache)
    standing.run, standing.checkpoint = progress.get("run"), checkpoint
    standing.learner, standing.matrix = learner, matrix
    standing.seconds, standing.steps = progress["seconds"], progress["steps"]
    standing.changes = [*progress.get("changes", []), *noted(changes, rows)]


def _take_midway(standing: Standing, checkpoint: Path, cfg: DictConfig) -> None:
    check_seal(checkpoint, MIDWAY)
    progress = read_progress(checkpoint, standing.run)
    check_matrix(progress, standing.matrix, checkpoint)
    changes = changes_since(progress.get("config"), cfg, checkpoint)
    if begun := [key for key in changes if key in LATER]:
        print(
            f"The experience is begun again, with another {' and '.join(begun)}.", file=sys.stderr
        )
        return
    _, values = load_midway(checkpoint)
    if values["training"].get("step") != progress["steps"]:
        raise WeightsError(f"{checkpoint} is damaged: its files are of different steps.")
    standing.run = progress.get("run")
    standing.midway = standing.checkpoint = checkpoint
    standing.seconds, standing.steps_midway = progress["seconds"], progress["steps"]
    newly = noted(changes, standing.matrix.rows, standing.steps_midway)
    standing.changes = [*progress.get("changes", []), *newly]


def read_progress(checkpoint: Path, run: str | None) -> dict[str, Any]:
    """The content of progress.json, which must be of this run and of the moment in the folder's name."""
    file = checkpoint / "progress.json"
    found = load_json(file)
    if not isinstance(found, dict) or not _is_progress(found):
        raise WeightsError(f"{file} is damaged: seconds, steps or config cannot be right.")
    if run is not None and found.get("run") != run:
        raise WeightsError(f"{checkpoint} is of another run.")
    experiences, _, step = checkpoint.name.partition("-")
    there = int(found.get("experiences", experiences)), found["steps"]
    if there != (int(experiences), int(step) if step else found["steps"]):
        raise WeightsError(
            f"{checkpoint} holds another moment: {there[0]} experiences, step {there[1]}."
        )
    return found


def check_matrix(progress: Mapping[str, Any], matrix: AccuracyMatrix, checkpoint: Path) -> None:
    """Raise WeightsError unless the checkpoint was made when the matrix had these very rows."""
    if progress.get("matrix", matrix.digest) != matrix.digest:
        raise WeightsError(f"accuracy_matrix.csv is not that with which {checkpoint} was made.")


def _is_progress(found: Mapping[str, Any]) -> bool:
    seconds, changes = found.get("seconds"), found.get("changes", [])
    return (
        isinstance(seconds, int | float)
        and isfinite(seconds)
        and seconds >= 0
        and is_count(found.get("steps"))
        and is_count(found.get("experiences", 0))
        and isinstance(found.get("config", {}), dict)
        and isinstance(changes, list)
        and all(isinstance(change, dict) for change in changes)
    )


def run_to_resume(cfg: DictConfig) -> Path | None:
    """The folder that `cfg.resume` means; None for a new run."""
    if cfg.resume not in SEARCHED:
        return None if cfg.resume is None else Path(cfg.resume)
    found = newest_unfinished(cfg)
    if found is None and cfg.resume == "latest":
        raise ConfigurationError(
            f"resume=latest: in {runs_folder(cfg, cfg.names)} is no run of this configuration that is not "
            "complete. resume=auto begins a new one then."
        )
    return found


def newest_unfinished(cfg: DictConfig) -> Path | None:
    """The newest run under `cfg.output` that is not complete and has this configuration, or None."""
    wanted = plain(cfg)
    for file in sorted(runs_folder(cfg, cfg.names).glob("*/config.yaml"), reverse=True):
        folder = file.parent
        if (folder / "summary.json").exists():
            continue
        try:
            with explained(ConfigurationError, f"{file} cannot be read"):
                found = differences(plain(load_run_config(folder)), wanted)
        except PalimpsestError as error:
            print(f"{error} It is passed over.", file=sys.stderr)
            continue
        if all(covered(key, (*HARMLESS, *BESIDE)) for key in found):
            return folder
    return None


def packages(cfg: DictConfig) -> list[str]:
    """The packages whose code this very command names."""
    several = (cfg.plugin, cfg.metric, cfg.logger)
    nodes = [
        cfg.strategy,
        cfg.stream,
        *(node for group in several for node in (group or {}).values()),
    ]
    return [str(node._target_).partition(".")[0] for node in nodes]
