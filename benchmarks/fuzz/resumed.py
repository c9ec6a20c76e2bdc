"""Run folders that are gone on with: every file in them, and their checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.fuzz.harness import Kind
from benchmarks.toys import DATA, compose, pixels, save_pixels
from cl.checkpoint import seal
from cl.errors import PalimpsestError
from cl.experiment import Experiment
from cl.report.groups import IGNORED
from cl.stopping import StoppedError

STOP_AT = 16
"""The optimiser's step in which the run is stopped: in the third of three experiences."""

RECIPE = ("strategy", "plugin", "backbone", "trainer", "seed")


def unfinished(folder: Path) -> None:
    """A run in `run`, stopped in the middle of its last experience."""
    save_pixels(folder / DATA)
    (folder / "run").mkdir()
    cfg = compose("strategy=ewc", "plugin=[ema]", "trainer.checkpoint_minutes=1e-9")
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == STOP_AT:
            os.kill(os.getpid(), signal.SIGTERM)

    hook = register_optimizer_step_post_hook(count)
    try:
        Experiment(cfg, folder=folder / "run").run()
        raise AssertionError("it was to be stopped")
    except StoppedError:
        pass
    finally:
        hook.remove()


def complete(folder: Path, *overrides: str) -> None:
    """A run in `folder`, from beginning to end."""
    folder.mkdir(parents=True)
    Experiment(compose(*overrides), folder=folder).run()


def facts(config: Any) -> dict[str, Any]:
    """Those keys of a configuration on which the numbers depend, and the names."""
    trainer = {k: v for k, v in config["trainer"].items() if f"trainer.{k}" not in IGNORED}
    return {key: config[key] for key in ("stream", "names", *RECIPE)} | {"trainer": trainer}


class Resumed(Kind):
    """A run that is gone on with: the same numbers, and a record of what happened."""

    def make(self, folder: Path) -> None:
        unfinished(folder)

    def read(self, folder: Path) -> Any:
        run = Path("run")
        Experiment.resume(run).run()
        file = run / "metrics.jsonl"  # where it is a folder, the logger says that it cannot write
        text = file.read_text() if file.is_file() else ""
        events = [json.loads(line) for line in text.splitlines()]
        kept = ("experience", "accuracy", "accuracy_within_task", "average_accuracy")
        return {
            "matrix": (run / "accuracy_matrix.csv").read_text(),
            "state": (run / "learner" / "state.safetensors").read_bytes(),
            "facts": facts(yaml.safe_load((run / "config.yaml").read_text())),
            "events": [
                {key: event.get(key) for key in kept}
                for event in events
                if event.get("event") == "experience"
            ],
        }

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        differs = [key for key in found if found[key] != expected[key]]
        if differs == ["events"]:  # what is lost is lost, but one should be told
            return None if said else "metrics.jsonl has other events, and not a word"
        wrong = contradiction(folder / "run", found)
        if wrong is None and not said:
            return f"not a word, and other {' and '.join(differs)}"
        return wrong


def contradiction(run: Path, found: dict[str, Any]) -> str | None:
    """What in a complete run's folder does not fit the rest of it."""
    learner = json.loads((run / "learner" / "learner.json").read_text())
    config = found["facts"]
    for key in RECIPE:
        recipe = learner["recipe"][key]
        if key == "trainer":
            recipe = {k: v for k, v in recipe.items() if f"trainer.{k}" not in IGNORED}
        if repr(recipe) != repr(config.get(key)):
            return f"config.yaml and the learner differ in {key}"
    summary = json.loads((run / "summary.json").read_text())
    named = {str(key): str(name) for key, name in config["names"].items()}
    if summary["names"] != named or summary["seed"] != config["seed"]:
        return "config.yaml and summary.json differ"
    rows = [line.split(",") for line in found["matrix"].splitlines()[1:]]
    counts = [[int(cell) for cell in (*row[:4], row[5])] for row in rows]
    tasks = config["stream"].get("tasks", 5)  # as the function has it
    wanted = [(i, j) for i in range(tasks) for j in range(i + 1)]
    if [(i, j) for i, j, *_ in counts] != wanted:
        return "the matrix has other rows"
    if any(not 0 <= right <= within <= images for _, _, images, right, within in counts):
        return "the matrix has impossible counts"
    last = [right / images for i, _, images, right, _ in counts if i == tasks - 1]
    if abs(float(np.mean(last)) - summary["average_accuracy"]) > 1e-9:
        return "the matrix and summary.json differ"
    if [event["experience"] for event in found["events"]] != list(range(tasks)):
        return "metrics.jsonl lacks experiences, or has some twice"
    return None


class ResumedConfig(Resumed):
    """The configuration of a run that is gone on with."""

    name = "resume: config.yaml"
    files = ("run/config.yaml",)
    share = 1.5


class BareConfig(Resumed):
    """The configuration of a run that was killed before its first checkpoint: all is built from it.

    Nothing else tells how it was meant: what it says now is done, if it can be done safely.
    """

    name = "resume: config.yaml alone"
    files = ("run/config.yaml",)

    def make(self, folder: Path) -> None:
        super().make(folder)
        for found in (folder / "run").iterdir():
            if found.is_dir():
                shutil.rmtree(found)
            elif found.name != "config.yaml":
                found.unlink()

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return contradiction(folder / "run", found)


class ResumedMatrix(Resumed):
    """Its accuracy matrix."""

    name = "resume: accuracy_matrix.csv"
    files = ("run/accuracy_matrix.csv",)


class ResumedSplit(Resumed):
    """Its split."""

    name = "resume: split.npz"
    files = ("run/split.npz",)
    share = 0.4


class ResumedMetrics(Resumed):
    """Its events."""

    name = "resume: metrics.jsonl"
    files = ("run/metrics.jsonl",)


class ResumedData(Resumed):
    """Its data: other images between stop and resume are noticed."""

    name = "resume: other data"
    share = 0.3

    def mutate(self, folder: Path, chance: Random) -> str:
        content = dict(np.load(folder / DATA))
        key = chance.choice(("images", "test_images"))
        deed = chance.choice(("noise", "one pixel", "other order", "another seed"))
        if deed == "noise":
            content[key] = np.random.default_rng(5).integers(0, 256, content[key].shape, np.uint8)
        elif deed == "one pixel":
            content[key].reshape(-1)[chance.randrange(content[key].size)] ^= 128
        elif deed == "other order":
            content[key] = content[key][::-1]
        else:
            content["images"] = pixels(60, seed=chance.randrange(2, 99))[0]
        np.savez(folder / DATA, **content)
        return f"{key}: {deed}"


class Between(Resumed):
    """The checkpoints between experiences: the one before a damaged one is taken."""

    name = "checkpoint"
    files = ("run/checkpoints/000001/*", "run/checkpoints/000002/*")
    share = 1.5


class Midway(Resumed):
    """The checkpoints in the middle of an experience."""

    name = "checkpoint midway"
    files = ("run/checkpoints/*-*/*",)
    share = 1.5


class Sealed(Resumed):
    """Checkpoints that somebody has changed and sealed again: other weights, but a record that fits."""

    whole = False

    def mutate(self, folder: Path, chance: Random) -> str:
        found = sorted(f for p in self.files for f in folder.glob(p) if f.name != "checksums.json")
        newest = [f for f in found if f.parent == found[-1].parent]
        before = self.files
        self.files = tuple(str(f.relative_to(folder)) for f in newest)
        done = super().mutate(folder, chance)
        self.files = before
        seal(newest[0].parent)
        return done

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return contradiction(folder / "run", found)


class SealedBetween(Sealed):
    """The newest checkpoint between experiences; there is none midway."""

    name = "checkpoint, sealed again"
    files = ("run/checkpoints/000002/*",)

    def make(self, folder: Path) -> None:
        super().make(folder)
        for midway in (folder / "run" / "checkpoints").glob("*-*"):
            for file in midway.iterdir():
                file.unlink()
            midway.rmdir()


class SealedMidway(Sealed):
    """The newest checkpoint in the middle of an experience."""

    name = "checkpoint midway, sealed again"
    files = ("run/checkpoints/*-*/*",)


class Complete(Kind):
    """A complete run is not gone on with, whatever becomes of its files: it stays as it is."""

    name = "resume: a complete run"
    files = ("run/*.*",)
    share = 0.5

    def make(self, folder: Path) -> None:
        save_pixels(folder / DATA)
        complete(folder / "run")

    def read(self, folder: Path) -> Any:
        before = snapshot(folder / "run")
        try:
            Experiment.resume(Path("run")).run()
        except PalimpsestError:
            return "left as it was" if snapshot(folder / "run") == before else "changed"
        return "run again"

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return f"a complete run was {found}"


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Which files are in a folder, and when they were written."""
    files = [f for f in folder.rglob("*") if f.name != ".lock" and not f.is_dir()]
    return {str(f): (f.lstat().st_mtime_ns, f.lstat().st_size) for f in files}


KINDS_HERE = (
    *(ResumedConfig, BareConfig, ResumedMatrix, ResumedSplit, ResumedMetrics, ResumedData),
    *(Complete, Between, Midway, SealedBetween, SealedMidway),
)
