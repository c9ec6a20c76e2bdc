"""One run: a learner goes through a stream, and the run folder tells what came of it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from cl.changes import SEARCHED, changed, plain, typed
from cl.checkpoint import save_json
from cl.environment import describe, peak_memory_bytes
from cl.errors import ConfigurationError
from cl.evaluation import Metric
from cl.evaluation.answers import FILE as ANSWERS
from cl.evaluation.answers import append, keep
from cl.evaluation.measuring import Measuring
from cl.evaluation.optimised import check_optimised
from cl.guards import resources_explained
from cl.instantiate import build
from cl.learner import KINDS as LEARNER_KINDS
from cl.learner import Learner
from cl.loggers import ExperienceResult, Logger, RunInfo, Shielded
from cl.metrics import summarise
from cl.midway import MidwayError
from cl.resuming import Standing, find_standing, packages, run_to_resume
from cl.run_folder import (
    Checkpoints,
    create_run_folder,
    create_run_id,
    load_run_config,
    lock,
    save_run_config,
    save_run_id,
)
from cl.stopping import StoppedError, StopRequest, resume_command
from cl.strategy import Progress
from cl.stream import Experience, Stream
from cl.training import count_steps
from cl.trust import Kind, check_trust

KINDS = {
    **LEARNER_KINDS,
    "stream": Kind(Stream, "streams", functions=True),
    "metric": Kind(Metric, "cl", several=True),
    "logger": Kind(Logger, "cl", several=True),
}
"""What the sections of a stored configuration may name."""

REPORT_SECONDS = 0.5
"""Between two reports of a step: reading the loss waits for the device."""


class Experiment:
    """A stream, a learner, and the loggers that are told.

    loggers: instead of those that the configuration names. folder: where everything goes; None makes a
    new one (`create_run_folder`). After `run`, `matrix` holds the accuracies.
    """

    def __init__(
        self,
        cfg: DictConfig,
        loggers: Sequence[Logger] | None = None,
        folder: Path | None = None,
        standing: Standing | None = None,
    ) -> None:
        check_optimised(cfg.get("optimised_metric", "average_accuracy"))
        self.cfg = cfg
        self.names = {str(key): str(name) for key, name in cfg.names.items()}
        self.stream: Stream = build(cfg.stream, "stream")
        self._stand(standing or Standing(create_run_id()))
        fabric = self.learner.fabric
        self.leads = fabric.is_global_zero  # of several processes one writes and reports
        self.loggers = create_loggers(cfg) if loggers is None else list(loggers)
        if not self.leads:
            self.loggers = []
        if folder is None and self.leads:
            folder = create_run_folder(cfg, self.names)
        self.folder = Path(fabric.broadcast(str(folder)))
        self.checkpoints = Checkpoints(self.folder)
        self.stop = StopRequest()
        if not self.keeps_checkpoints:
            self.stop.notice = f"Stopping. {self.again}"

    @property
    def midway(self) -> Path | None:
        """The checkpoint inside the next experience from which that goes on."""
        return self.standing.midway

    def _stand(self, standing: Standing) -> None:
        """Be where a run stands."""
        info, augmentation = self.stream.info, self.stream.augmentation
        self.learner = standing.learner or Learner(self.cfg, info, augmentation)
        self.run_id = self.learner.run_id = standing.run
        self.measuring = Measuring(self.cfg, self.stream, self.learner)
        if standing.checkpoint is not None:
            self.measuring.load(standing.checkpoint)
        self.matrix, self.changes = standing.matrix, standing.changes
        self.seconds, self.steps = standing.seconds, standing.steps
        self.standing, self.steps_midway = standing, standing.steps_midway

    @classmethod
    def resume(
        cls,
        folder: Path,
        loggers: Sequence[Logger] | None = None,
        trust: Sequence[str] = (),
        changes: Mapping[str, Any] | None = None,
    ) -> Experiment:
        """An experiment that goes on where the run in `folder` was: after its last undamaged checkpoint.

        changes: values, or whole sections, by dotted key, to go on with instead of the stored ones, such as
        {"trainer.device": "cuda"}; ConfigurationError for one that may not be changed.
        """
        cfg = load_run_config(folder)
        check_trust(cfg, KINDS, trust)
        if (folder / "summary.json").exists():
            raise ConfigurationError(f"resume={folder}: this run is complete.")
        cfg = changed(cfg, changes or {}, folder)
        return cls(cfg, loggers, folder, find_standing(folder, cfg, trust))

    def run(self) -> dict[str, Any]:
        """Learn and evaluate what is left of the stream; returns the content of summary.json.

        Raises StoppedError after a checkpoint when a signal asks for it.
        """
        explained = resources_explained(
            self.folder,
            self.learner.config,
            self.learner.model.transform.size,
            self.again,
        )
        locked = lock(self.folder) if self.leads else nullcontext()
        self.tell = Shielded(self.loggers)
        with explained, locked, self.stop:
            if self.leads:
                self._write_down()
            self.tell.start(self._run_info())
            try:
                for index in range(self.matrix.rows, len(self.stream)):
                    self._experience(self.stream.experience(index))
                summary = self.summary()
                if self.leads:
                    self.learner.save(self.folder / "learner")
                    save_json(summary, self.folder / "summary.json")  # now the run is complete
                    shutil.rmtree(self.checkpoints.folder, ignore_errors=True)
                self.tell.finish(summary)
            finally:
                self.tell.close()
        return summary

    def _write_down(self) -> None:
        """What must be known to go on, unless it is there; the configuration last, for it makes a run."""
        if self.run_id is not None:
            save_run_id(self.run_id, self.folder)
        self.stream.save_split(self.folder / "split.npz")
        self.matrix.write(self.folder / "accuracy_matrix.csv")
        wanted = self.measuring.config.answers
        self.keeps_answers = wanted and keep(self.folder / ANSWERS, self.matrix.rows)
        if wanted and not self.keeps_answers:
            print(
                f"{self.folder / ANSWERS} lacks what was answered before: no answers are kept.",
                file=sys.stderr,
            )
        save_run_config(self.cfg, self.folder)

    def summary(self) -> dict[str, Any]:
        """The metrics, the costs, and what the run ran on."""
        device = self.learner.fabric.device
        # A fresh head is right by chance: its rows are alike, so nothing is known of any class.
        chance = np.full(self.matrix.rows, 1 / len(self.stream.class_names))
        sequential = self.learner.strategy.sequential
        within = summarise(self.matrix.values(within_task=True), chance, sequential)
        return {
            "names": self.names,
            "seed": self.learner.seed,
            **summarise(self.matrix.values(), chance, sequential),
            "within_task": within,
            "metrics": self.measuring.numbers,
            "undefined": self.measuring.reasons,
            "seconds": self.seconds,
            "trainable_parameters": self.learner.trainable_parameters,
            "stored_numbers": self.learner.stored_numbers,
            "peak_memory_bytes": peak_memory_bytes(device),
            "pretrained": self.learner.model.pretrained,
            "stream_fingerprint": self.stream.fingerprint(),
            "stream_contents": self.stream.contents,
            "run": self.run_id,
            "changes": self.changes,
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            **describe(device),
        }

    def _learn(self, experience: Experience, on_step: Callable[[Progress], None]) -> int:
        """Learn an experience, or what is left of it; returns the number of steps."""
        midway, self.standing.midway = self.standing.midway, None
        try:
            if midway is None:
                self.measuring.before(experience.index)
            arriving = self.measuring.arriving(experience, midway is not None)
            return self.learner.learn_experience(experience, on_step, midway, arriving)
        except MidwayError as error:
            print(f"{error} The checkpoint before it is taken.", file=sys.stderr)
        assert self.standing.before_midway is not None
        self._stand(self.standing.before_midway())
        return self._learn(experience, on_step)

    def _experience(self, experience: Experience) -> None:
        start = time.perf_counter()
        self.saved = time.monotonic()
        report = self._reporter(start)

        def on_step(progress: Progress) -> None:
            report(progress, self.measuring.step(progress))
            self.seconds = self.standing.seconds + time.perf_counter() - start
            if progress.step < progress.steps:
                self._checkpoint_midway(progress)

        steps = self._learn(experience, on_step)
        trained = time.perf_counter()
        self.matrix.add(self.measuring.row(experience.index))
        answers = self.measuring.answers.take()
        evaluated = time.perf_counter()
        self.seconds = self.standing.seconds = self.standing.seconds + evaluated - start
        self.steps += steps
        if self.leads:
            self.matrix.append_to(self.folder / "accuracy_matrix.csv")
            if self.keeps_answers:
                append(answers, self.folder / ANSWERS)
        result = ExperienceResult(
            index=experience.index,
            classes=[self.stream.class_names[label] for label in experience.new_classes],
            accuracy=self.matrix.values(),
            accuracy_within_task=self.matrix.values(within_task=True),
            logged=_read(self.learner.logged),
            training_seconds=trained - start,
            evaluation_seconds=evaluated - trained,
            trainable_parameters=self.learner.trainable_parameters,
            stored_numbers=self.learner.stored_numbers,
            total_steps=self.steps,
            peak_memory_bytes=peak_memory_bytes(self.learner.fabric.device),
            sequential=self.learner.strategy.sequential,
            measured=self.measuring.numbers,
        )
        self.tell.experience(result)
        if self.learner.config.checkpoint and self.leads:
            with self.checkpoints.writing(self.matrix.rows) as folder:
                self._write_progress(folder, self.steps)
                self.learner.write(folder)
                self.measuring.write(folder)
        number = self.learner.model.ranks.highest(self.stop.number)
        if number and self.matrix.rows < len(self.stream):
            raise self._stopped(number)

    def _checkpoint_midway(self, progress: Progress) -> None:
        """Write a checkpoint inside an experience if it is time, or if the run is to stop."""
        config, ranks = self.learner.config, self.learner.model.ranks
        minutes = (time.monotonic() - self.saved) / 60
        due = 0 < config.checkpoint_minutes <= minutes
        number = ranks.highest(self.stop.number)
        if config.checkpoint and self.leads and (due or number):
            with self.checkpoints.writing(self.matrix.rows, progress.step) as folder:
                self._write_progress(folder, progress.step)
                self.learner.save_midway(folder)
                self.measuring.write(folder)
            self.saved = time.monotonic()
        if number:
            ranks.highest(number)  # what starts the processes kills all once one has ended
            raise self._stopped(number)

    def _write_progress(self, checkpoint: Path, steps: int) -> None:
        """What a checkpoint is of, and what `cl.resuming` compares. steps: as in `Standing`."""
        content = {
            "run": self.run_id,
            "experiences": self.matrix.rows,
            "steps": steps,
            "seconds": self.seconds,
            "matrix": self.matrix.digest,
            "config": plain(self.cfg),
            "changes": self.changes,
        }
        save_json(content, checkpoint / "progress.json")

    def _stopped(self, number: int) -> StoppedError:
        return StoppedError(f"Stopped. {self.again}", number)

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether a run that ends before its time can go on later."""
        return self.learner.config.checkpoint and not self.learner.strategy.own_loop

    @property
    def again(self) -> str:
        """How to go on with this run once it has ended before its time."""
        if self.keeps_checkpoints:
            return f"To go on: {resume_command(self.folder)}"
        return "It kept no checkpoint (trainer.checkpoint=false), so it must begin anew."

    def _reporter(self, start: float) -> Any:
        """Tells the loggers of a step now and then."""
        last = start

        def report(progress: Progress, measured: Mapping[str, float]) -> None:
            nonlocal last
            now = time.perf_counter()
            due = now - last >= REPORT_SECONDS or progress.step == progress.steps
            if not (due or measured):
                return
            last = now
            values = {
                "experience": progress.experience,
                "step": progress.step,
                "steps": progress.steps,
                "total_steps": self.steps + progress.step,
                "images_per_second": progress.images / (now - start),
                "lr": progress.lr,
                "loss": float(progress.loss),
                **_read(self.learner.logged),
                **{f"metrics.{name}": value for name, value in measured.items()},
            }
            self.tell.step(values)

        return report

    def _run_info(self) -> RunInfo:
        config: Any = OmegaConf.to_container(self.cfg, resolve=True)
        steps = sum(count_steps(len(data), self.learner.config) for data in self.stream.train)
        if self.learner.strategy.gradient_free or self.learner.strategy.own_loop:
            steps = 0
        pretrained = self.learner.model.pretrained
        return RunInfo(
            self.folder,
            config,
            self.names,
            pretrained,
            self.stream,
            steps,
            experiences_done=self.matrix.rows,
            steps_done=self.steps + self.steps_midway,
        )


def start(cfg: DictConfig) -> Experiment:
    """A new experiment, or the one that `cfg.resume` means, with what the command line says beside it."""
    folder = run_to_resume(cfg)
    if folder is None:
        return Experiment(cfg)
    trust = [*cfg.trust, *(packages(cfg) if cfg.resume in SEARCHED else ())]
    return Experiment.resume(folder, trust=trust, changes=typed(cfg))


def create_loggers(cfg: DictConfig) -> list[Logger]:
    """The loggers that `cfg.logger` names, in that order."""
    nodes = cfg.get("logger") or {}
    return [build(node, f"logger.{name}") for name, node in nodes.items()]


def _read(logged: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logged.items()}
