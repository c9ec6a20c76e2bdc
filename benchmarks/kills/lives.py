"""A run in a process of its own: begun or gone on with, until its end or its death."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from benchmarks.fuzz.harness import place_of
from benchmarks.kills.deaths import Event, Moment, watched
from benchmarks.toys import compose
from cl.checkpoint import check_seal
from cl.errors import PalimpsestError
from cl.experiment import Experiment
from cl.stopping import StoppedError

FORK = multiprocessing.get_context("fork")  # a child has everything imported already

STRATEGIES = {
    **{name: [f"strategy={name}"] for name in ("naive", "ewc", "si", "er", "derpp", "olora")},
    **{name: [f"strategy={name}"] for name in ("inflora", "l2p", "slca", "mos", "codyra")},
    "ranpac": ["strategy=ranpac", "strategy.projection=64"],
}

PATIENCE = 120
"""Seconds after which a run of half a second is said to hang."""

VARYING = (
    *("seconds", "training_seconds", "evaluation_seconds", "peak_memory_bytes", "date", "run"),
    "git_revision",
)
"""The keys of results that are not the same in two runs."""


@dataclass(frozen=True)
class End:
    """How a process ended. said: the error, if there was one."""

    status: int
    said: str = ""

    @property
    def kind(self) -> str:
        """One word for it."""
        if self.status < 0:
            return signal.Signals(-self.status).name
        known = {0: "complete", 1: "sentence", 3: "traceback", 4: "hang", 5: "lost", 143: "stopped"}
        return known[self.status]


def configuration(strategy: str, *more: str) -> DictConfig:
    """Three experiences of six steps, with a checkpoint after every step."""
    often = ["trainer.checkpoint_minutes=1e-9", "plugin=[ema]"]
    return compose(*STRATEGIES[strategy], *often, *more)


def live(
    cfg: DictConfig,
    folder: Path,
    prepare: Callable[[Path], None],
    sent: tuple[float, int] | None = None,
) -> End:
    """Begin the run in `folder`, or go on with it, in a child.

    prepare: called in the child before anything else. sent: after so many seconds, this signal.
    """
    receiving, sending = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_child, args=(cfg, folder, prepare, sending))
    child.start()
    sending.close()
    if sent is not None:
        child.join(sent[0])
        if child.is_alive() and child.pid:
            os.kill(child.pid, sent[1])
    child.join(PATIENCE)
    if child.is_alive():
        child.kill()
        child.join()
        return End(4, f"more than {PATIENCE} s")
    assert child.exitcode is not None
    try:
        return End(child.exitcode, receiving.recv())
    except EOFError:  # it died before it could say anything
        return End(child.exitcode)


def _child(
    cfg: DictConfig, folder: Path, prepare: Callable[[Path], None], sending: Connection
) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    status, said = 0, ""
    try:
        prepare(folder)
        _go_on(cfg, folder)
    except StoppedError as error:
        status, said = error.status, str(error)
    except _LostError as error:
        status, said = 5, str(error)
    except PalimpsestError as error:
        status, said = 1, str(error)
    except Exception as error:
        status, said = 3, f"{error!r} in {place_of(error)}"
    sending.send(said)
    os._exit(status)


class _LostError(Exception):
    """There are checkpoints, and the run cannot be gone on with."""


def _go_on(cfg: DictConfig, folder: Path) -> None:
    """What a user does: go on, or begin anew as long as nothing has been learnt."""
    if (folder / "config.yaml").exists():
        try:
            experiment = Experiment.resume(folder)
        except PalimpsestError as error:
            if learnt(folder):
                raise _LostError(str(error)) from error
        else:
            experiment.run()
            return
    elif learnt(folder):
        raise _LostError("config.yaml is gone")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    Experiment(cfg, folder=folder).run()


def learnt(folder: Path) -> bool:
    """Whether there is a complete checkpoint."""
    found = (folder / "checkpoints").glob("*/checksums.json")
    return any(not file.parent.name.endswith(".partial") for file in found)


def complete(folder: Path) -> bool:
    """Whether the run says that it is complete."""
    return (folder / "summary.json").exists()


def results(folder: Path) -> dict[str, Any]:
    """What must be the same whatever happened on the way: bytes, and all figures but times.

    The number that a run was given at random is left out, wherever it stands.
    """
    summary = json.loads((folder / "summary.json").read_text())
    own = str(summary.get("run") or "no number").encode()
    files = ["accuracy_matrix.csv", "learner/learner.json", "learner/state.safetensors"]
    found: dict[str, Any] = {n: (folder / n).read_bytes().replace(own, b"") for n in files}
    check_seal(folder / "learner")
    found["summary.json"] = _timeless(summary)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    found["metrics.jsonl"] = [_timeless(e) for e in events if e["event"] == "experience"]
    return found


def _timeless(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in VARYING}


@dataclass(frozen=True)
class Undisturbed:
    """What a run gives and takes when nobody disturbs it.

    events: all that it does to the file system. bytes: the most that its folder takes, in pages.
    """

    results: dict[str, Any]
    seconds: float
    events: tuple[Event, ...]
    bytes: int

    @classmethod
    def of(cls, cfg: DictConfig, folder: Path) -> Undisturbed:
        """Once to measure the time, and once to watch."""
        started = time.monotonic()
        end = live(cfg, folder, Moment())
        seconds = time.monotonic() - started
        assert end.kind == "complete", end.said
        expected = results(folder)
        events = watch(cfg, folder.with_name(f"{folder.name}-watched"))
        return cls(expected, seconds, events, max(event.bytes for event in events))


def watch(cfg: DictConfig, folder: Path) -> tuple[Event, ...]:
    """What a run, begun or gone on with in `folder`, does to the file system until its end."""
    log = folder.with_name(f"{folder.name}.events")
    end = live(cfg, folder, watched(log))
    assert end.kind == "complete", end.said
    return tuple(Event(*json.loads(line)) for line in log.read_text().splitlines())
