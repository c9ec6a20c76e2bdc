"""Weights & Biases: the curves, the matrix and the summary of a run, sent from a thread of its own."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from rich.console import Console

from cl.checkpoint import load_json, save_json
from cl.errors import require, suggest
from cl.loggers.base import ExperienceResult, Logger, RunInfo, flatten, series_of_step
from cl.metrics import Matrix
from cl.report.plots import heat_map, to_pixels

MODES = ("online", "offline", "disabled")
AXES = {"train": "step", "test": "experience", "learnt": "experience", "cost": "experience"}
"""The x axis of every series, by the first part of its name."""

DRAWN = 50
"""Up to this many tasks the matrix is sent after each experience; beyond it, after the last."""


class WandbLogger(Logger):
    """Sends a run to Weights & Biases, or to its files, without ever stopping or slowing the training.

    project, entity, group, name, tags: as in wandb; group is "<stream>/<backbone>/<strategy>" unless
    given, so that seeds lie together. mode: "online", "offline" (files in the run folder, for `wandb sync`)
    or "disabled". save_artifact: upload the run folder at the end. timeout: how many seconds the server may
    take to answer at the start; if it does not, the run is logged offline and the console says so once.

    Series: train/… over step; test/…, learnt/… and cost/… over experience. All calls to wandb are made
    by one thread, in order. The run's id is kept in the run folder, so a resumed run goes on in the same
    place; a row that was sent before the interruption is not sent twice, because each has its own number.
    """

    def __init__(
        self,
        project: str = "palimpsest",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        mode: Literal["online", "offline", "disabled"] = "online",
        save_artifact: bool = False,
        timeout: float = 20.0,
    ) -> None:
        require(mode in MODES, f"logger.wandb.mode={mode}: {suggest(mode, MODES)}")
        require(timeout > 0, f"logger.wandb.timeout={timeout}: it must be more than 0 seconds.")
        self.project, self.entity, self.group, self.name = project, entity, group, name
        self.tags, self.mode, self.save_artifact, self.timeout = tags, mode, save_artifact, timeout
        self.calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self.wandb_run: Any = None
        self.steps, self.complete, self.warned, self.draws = 0, False, False, True
        self.undrawn: Matrix | None = None

    def start(self, run: RunInfo) -> None:
        if self.mode == "disabled":
            return
        self.run = run
        self.identity = _identity(run.folder / "wandb.json", self.project)
        # A daemon: if wandb hangs for good, the program ends all the same.
        self.thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self.thread.start()

    def step(self, values: dict[str, float]) -> None:
        if self.thread is None:
            return
        self.steps = int(values["total_steps"])
        row = {f"train/{name}": value for name, value in series_of_step(values).items()}
        self._log(int(values["experience"]), {**row, "step": self.steps})

    def experience(self, result: ExperienceResult) -> None:
        if self.thread is None:
            return
        self.steps = result.total_steps
        R, index = result.accuracy, result.index
        row: dict[str, Any] = {f"test/{name}": value for name, value in result.metrics().items()}
        row |= {f"test/accuracy/task_{j + 1}": float(R[index, j]) for j in range(index + 1)}
        row |= {f"learnt/{name}": value for name, value in result.logged.items()}
        row |= {f"cost/{name}": value for name, value in result.costs().items()}
        row["experience"] = index
        last = index == self.run.experiences - 1
        self._log(index + 1, row, R if last or len(R) <= DRAWN else None)

    def finish(self, summary: dict[str, Any]) -> None:
        self.complete = True
        self.calls.put(lambda: self.wandb_run.summary.update(flatten(summary)))

    def close(self) -> None:
        if self.thread is None:
            return
        self.calls.put(self._draw)
        if self.complete and self.save_artifact:
            self.calls.put(self._upload)
        code = 0 if self.complete else 1
        self.calls.put(lambda: self.wandb_run.finish(exit_code=code))
        self.calls.put(None)
        self.thread.join(2 * self.timeout)
        if self.thread.is_alive():
            self._warn("Weights & Biases did not take the last data in time")

    def _log(self, extra: int, row: dict[str, Any], matrix: Matrix | None = None) -> None:
        """Send a row. Its number counts steps and experiences, so it grows and a resumed run repeats it."""
        number = self.steps + extra

        def send() -> None:
            self.wandb_run.log(row, step=number)
            self.undrawn = self.undrawn if matrix is None else matrix

        self.calls.put(send)

    def _draw(self) -> None:
        """Add the latest matrix to the last row; for a table wandb asks its server, which may be gone."""
        R, self.undrawn = self.undrawn, None
        if R is None or not self.draws:
            return
        try:
            self.wandb_run.log(self._pictures(R), commit=False)
        except Exception as error:
            self.draws = False  # the numbers go on; asking again each time would hold them up
            self._warn(f"Weights & Biases failed ({_short(error)})")

    def _next(self) -> Callable[[], None] | None:
        """The next call. Pictures are drawn when no numbers wait."""
        if self.calls.empty():
            self._draw()
        return self.calls.get()

    def _work(self) -> None:
        """The thread: open the run, make the calls in order; after an error, drop the rest."""
        try:
            self._open()
            while (call := self._next()) is not None:
                call()
        except Exception as error:  # whatever it is, the training goes on
            self._warn(f"Weights & Biases failed ({_short(error)})")

    def _open(self) -> None:
        # Else wandb reports its own errors to its makers, which takes time when there is no network.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.wandb = wandb
        wandb.setup(settings=wandb.Settings(silent=True))
        if self.mode == "online":
            try:
                # Asked beforehand: wandb would otherwise wait for somebody to type a key.
                if not wandb.login(prompt=False, verify=False):
                    raise ConnectionError("there is no API key; get one with: wandb login")
                self._init("online")
            except Exception as error:  # no network, a wrong key, a server that does not answer
                wandb.teardown()  # else the failed attempt keeps the run's id
                self._init("offline")
                self._warn(f"Weights & Biases cannot be used online ({_short(error)})")
        else:
            self._init("offline")
        for axis in ("step", "experience"):
            self.wandb_run.define_metric(axis, hidden=True)
        for part, axis in AXES.items():
            self.wandb_run.define_metric(f"{part}/*", step_metric=axis)

    def _init(self, mode: Literal["online", "offline"]) -> None:
        names, wandb = self.run.names, self.wandb
        self.wandb_run = wandb.init(
            project=self.identity["project"],
            entity=self.entity,
            id=self.identity["id"],
            resume="allow",
            group=self.group or f"{names['stream']}/{names['backbone']}/{names['strategy']}",
            name=self.name or f"{names['strategy']}-{names['stream']}-{self.run.folder.name}",
            tags=[*self.tags, *names.values()],
            config={**self.run.config, "pretrained": self.run.pretrained},
            dir=str(self.run.folder),
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=self.timeout,
                finish_timeout=self.timeout,
                disable_git=True,
            ),
        )

    def _pictures(self, R: Matrix) -> dict[str, Any]:
        """The matrix as a table and as a picture."""
        columns: list[str | int] = ["after task", *(f"task {j + 1}" for j in range(len(R)))]
        rows = [
            [i + 1, *(None if value != value else float(value) for value in row)]
            for i, row in enumerate(R)
        ]
        table = self.wandb.Table(columns=columns, data=rows)
        return {"matrix/table": table, "matrix/heat_map": self.wandb.Image(to_pixels(heat_map(R)))}

    def _upload(self) -> None:
        artifact = self.wandb.Artifact(f"run-{self.identity['id']}", type="run")
        for path in sorted(self.run.folder.rglob("*")):
            inside = path.relative_to(self.run.folder)
            if path.is_file() and inside.parts[0] != "wandb":
                artifact.add_file(str(path), name=inside.as_posix())
        self.wandb_run.log_artifact(artifact)

    def _warn(self, what: str) -> None:
        """Say once what is wrong, and how the data get there all the same."""
        if not self.warned:
            self.warned = True
            files = Path(self.wandb_run.dir).parent if self.wandb_run else self.run.folder
            Console(stderr=True).print(
                f"{what}. The run goes on; what was logged is kept, to be uploaded later with: "
                f"wandb sync {files}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _identity(file: Path, project: str) -> dict[str, str]:
    """The id and the project of the run; made at the first start, read when it is resumed."""
    if not file.exists():
        save_json({"id": uuid4().hex[:12], "project": project}, file)
    identity: dict[str, str] = load_json(file)
    return identity


def _short(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
