"""One run: a learner goes through a stream, and the run folder tells what came of it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from cl.checkpoint import check_seal, load_json, save_json
from cl.data.cache import create_cache
from cl.environment import describe, peak_memory_bytes
from cl.errors import ConfigurationError, WeightsError
from cl.evaluation import AccuracyMatrix, evaluate
from cl.guards import resources_explained
from cl.instantiate import build
from cl.learner import KINDS as LEARNER_KINDS
from cl.learner import Learner
from cl.loggers import ExperienceResult, Logger, RunInfo
from cl.metrics import summarise
from cl.run_folder import Checkpoints, create_run_folder, load_run_config, lock
from cl.stopping import StoppedError, StopRequest
from cl.stored import fields
from cl.strategy import Progress
from cl.stream import Experience, Stream
from cl.training import count_steps
from cl.trust import Kind, check_trust

KINDS = {
    **LEARNER_KINDS,
    "stream": Kind(Stream, "streams", functions=True),
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
        learner: Learner | None = None,
    ) -> None:
        self.cfg = cfg
        self.names = {str(key): str(name) for key, name in cfg.names.items()}
        self.stream: Stream = build(cfg.stream, "stream")
        self.learner = learner or Learner(cfg, self.stream.info, self.stream.augmentation)
        fabric = self.learner.fabric
        self.leads = fabric.is_global_zero  # of several processes one writes and reports
        self.loggers = create_loggers(cfg) if loggers is None else list(loggers)
        if not self.leads:
            self.loggers = []
        if folder is None and self.leads:
            folder = create_run_folder(cfg, self.names)
        self.folder = Path(fabric.broadcast(str(folder)))
        self.matrix = AccuracyMatrix()
        self.seconds = 0.0
        self.steps = 0
        self.checkpoints = Checkpoints(self.folder)
        self.midway: Path | None = None
        self.steps_midway = 0
        self.stop = StopRequest()

    @classmethod
    def resume(
        cls, folder: Path, loggers: Sequence[Logger] | None = None, trust: Sequence[str] = ()
    ) -> Experiment:
        """An experiment that goes on where the run in `folder` was: after its last undamaged checkpoint."""
        cfg = load_run_config(folder)
        check_trust(cfg, KINDS, trust)
        if (folder / "summary.json").exists():
            raise ConfigurationError(f"resume={folder}: this run is complete.")
        for checkpoint in reversed(Checkpoints(folder).between()):
            try:
                learner = Learner.load(checkpoint, trust)
                rows = int(checkpoint.name)
                matrix = AccuracyMatrix.read(folder / "accuracy_matrix.csv", rows)
                seconds, steps = _progress(checkpoint)
            except WeightsError as error:
                print(f"{error} The checkpoint before it is taken.", file=sys.stderr)
                continue
            learner.model.cache = create_cache(cfg.cache)
            experiment = cls(cfg, loggers, folder, learner)
            experiment.matrix = matrix
            experiment.seconds, experiment.steps = seconds, steps
            experiment._find_midway()
            return experiment
        experiment = cls(cfg, loggers, folder)
        experiment._find_midway()
        return experiment

    def _find_midway(self) -> None:
        """Note the newest undamaged checkpoint inside the experience that comes next."""
        for checkpoint in reversed(self.checkpoints.midway(self.matrix.rows)):
            try:
                check_seal(checkpoint)
                self.seconds, self.steps_midway = _progress(checkpoint)
            except WeightsError as error:
                print(f"{error} The checkpoint before it is taken.", file=sys.stderr)
                continue
            self.midway = checkpoint
            return

    def run(self) -> dict[str, Any]:
        """Learn and evaluate what is left of the stream; returns the content of summary.json.

        Raises StoppedError after a checkpoint when a signal asks for it.
        """
        explained = resources_explained(
            self.folder, self.learner.config, self.learner.model.transform.size
        )
        locked = lock(self.folder) if self.leads else nullcontext()
        with locked, explained, StopRequest() as self.stop:
            if self.leads:
                OmegaConf.save(self.cfg, self.folder / "config.yaml", resolve=True)
                self.stream.save_split(self.folder / "split.npz")
                self.matrix.write(self.folder / "accuracy_matrix.csv")
            for logger in self.loggers:
                logger.start(self._run_info())
            try:
                for index in range(self.matrix.rows, len(self.stream)):
                    self._experience(self.stream.experience(index))
                summary = self.summary()
                if self.leads:
                    self.learner.save(self.folder / "learner")
                for logger in self.loggers:
                    logger.finish(summary)
                if self.leads:
                    shutil.rmtree(self.checkpoints.folder, ignore_errors=True)
            finally:
                for logger in self.loggers:
                    logger.close()
        return summary

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
            "seconds": self.seconds,
            "trainable_parameters": self.learner.trainable_parameters,
            "stored_numbers": self.learner.stored_numbers,
            "peak_memory_bytes": peak_memory_bytes(device),
            "pretrained": self.learner.model.pretrained,
            "stream_fingerprint": self.stream.fingerprint(),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            **describe(device),
        }

    def _experience(self, experience: Experience) -> None:
        start = time.perf_counter()
        before = self.seconds
        self.saved = time.monotonic()
        report = self._reporter(start)

        def on_step(progress: Progress) -> None:
            report(progress)
            self.seconds = before + time.perf_counter() - start
            if progress.step < progress.steps:
                self._checkpoint_midway(progress)

        midway, self.midway = self.midway, None
        steps = self.learner.learn_experience(experience, on_step, midway)
        trained = time.perf_counter()
        self.matrix.add(evaluate(self.learner, self.stream, experience.index))
        evaluated = time.perf_counter()
        self.seconds = before + evaluated - start
        self.steps += steps
        if self.leads:
            self.matrix.append_to(self.folder / "accuracy_matrix.csv")
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
        )
        for logger in self.loggers:
            logger.experience(result)
        if self.learner.config.checkpoint and self.leads:
            with self.checkpoints.writing(self.matrix.rows) as folder:
                save_json({"seconds": self.seconds, "steps": self.steps}, folder / "progress.json")
                self.learner.save(folder)
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
                done = {"seconds": self.seconds, "steps": progress.step}
                save_json(done, folder / "progress.json")
                self.learner.save_midway(folder)
            self.saved = time.monotonic()
        if number:
            raise self._stopped(number)

    def _stopped(self, number: int) -> StoppedError:
        return StoppedError(f"Stopped. To go on: python run.py resume={self.folder}", number)

    def _reporter(self, start: float) -> Any:
        """Tells the loggers of a step now and then."""
        last = start

        def report(progress: Progress) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last < REPORT_SECONDS and progress.step < progress.steps:
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
            }
            for logger in self.loggers:
                logger.step(values)

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


def create_loggers(cfg: DictConfig) -> list[Logger]:
    """The loggers that `cfg.logger` names, in that order."""
    nodes = cfg.get("logger") or {}
    return [build(node, f"logger.{name}") for name, node in nodes.items()]


def _progress(checkpoint: Path) -> tuple[float, int]:
    """How many seconds a run had taken when it wrote the checkpoint, and how many steps."""
    file = checkpoint / "progress.json"
    done = fields(load_json(file), file, {"seconds": int | float, "steps": int}, WeightsError)
    return float(done["seconds"]), done["steps"]


def _read(logged: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logged.items()}
