"""One run: a learner goes through a stream, and the run folder tells what came of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from cl.checkpoint import load_json, save_json
from cl.environment import describe, peak_memory_bytes
from cl.errors import ConfigurationError, PalimpsestError, WeightsError
from cl.evaluation import AccuracyMatrix, Cell, evaluate
from cl.instantiate import build, check_trust
from cl.learner import TRUSTED, Learner
from cl.loggers import ExperienceResult, Logger, RunInfo
from cl.metrics import summarise
from cl.stream import Experience, Stream
from cl.training import Progress, count_steps

REPORT_SECONDS = 0.5
"""Between two reports of a step: reading the loss waits for the device."""

KEPT_CHECKPOINTS = 2


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
        self.loggers = create_loggers(cfg) if loggers is None else list(loggers)
        self.stream: Stream = build(cfg.stream, "stream")
        self.learner = learner or Learner(cfg, self.stream.info, self.stream.augmentation)
        self.folder = folder or create_run_folder(cfg, self.names)
        self.matrix = AccuracyMatrix()
        self.seconds = 0.0
        self.steps = 0

    @classmethod
    def resume(
        cls, folder: Path, loggers: Sequence[Logger] | None = None, trust: Sequence[str] = ()
    ) -> Experiment:
        """An experiment that goes on after the last complete experience of the run in `folder`."""
        cfg = load_run_config(folder)
        check_trust(str(cfg.stream._target_), ("streams", "cl", *trust))
        for node in (cfg.get("logger") or {}).values() if loggers is None else ():
            check_trust(str(node._target_), ("cl", *trust))
        if (folder / "summary.json").exists():
            raise ConfigurationError(f"resume={folder}: this run is complete.")
        for checkpoint in reversed(checkpoints(folder)):
            try:
                progress = load_json(checkpoint / "progress.json")
                learner = Learner.load(checkpoint, (*TRUSTED, *trust))
            except WeightsError:
                continue  # damaged: the one before it will do
            experiment = cls(cfg, loggers, folder, learner)
            experiment.matrix = AccuracyMatrix([Cell(**cell) for cell in progress["cells"]])
            experiment.seconds, experiment.steps = progress["seconds"], progress["steps"]
            return experiment
        return cls(cfg, loggers, folder)

    def run(self) -> dict[str, Any]:
        """Learn and evaluate what is left of the stream; returns the content of summary.json."""
        OmegaConf.save(self.cfg, self.folder / "config.yaml", resolve=True)
        self.stream.save_split(self.folder / "split.npz")
        for logger in self.loggers:
            logger.start(self._run_info())
        try:
            for index in range(self.matrix.rows, len(self.stream)):
                self._experience(self.stream.experience(index))
            summary = self.summary()
            self.learner.save(self.folder / "learner")
            for logger in self.loggers:
                logger.finish(summary)
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        finally:
            for logger in self.loggers:
                logger.close()
        return summary

    def summary(self) -> dict[str, Any]:
        """The metrics, the costs, and what the run ran on."""
        device = self.learner.fabric.device
        # A fresh head is right by chance: its rows are drawn alike, so no class is preferred.
        chance = np.full(self.matrix.rows, 1 / len(self.stream.class_names))
        within = summarise(self.matrix.values(within_task=True), chance)
        return {
            "names": self.names,
            "seed": self.learner.seed,
            **summarise(self.matrix.values(), chance),
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
        steps = self.learner.learn(experience, self._reporter(start))
        trained = time.perf_counter()
        self.matrix.cells += evaluate(self.learner, self.stream, experience.index)
        evaluated = time.perf_counter()
        self.seconds += evaluated - start
        self.steps += steps
        (self.folder / "accuracy_matrix.csv").write_text(self.matrix.to_csv())
        if self.learner.config.checkpoint:
            self._checkpoint(experience.index)
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
        )
        for logger in self.loggers:
            logger.experience(result)

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

    def _checkpoint(self, index: int) -> None:
        """Write to the side, rename, and let the older ones go."""
        final = self.folder / "checkpoints" / f"{index:06d}"
        partial = final.with_suffix(".partial")
        for remnant in (partial, final):  # of a run that was killed, or damaged since
            shutil.rmtree(remnant, ignore_errors=True)
        self.learner.save(partial)
        progress = {
            "cells": [asdict(cell) for cell in self.matrix.cells],
            "seconds": self.seconds,
            "steps": self.steps,
        }
        save_json(progress, partial / "progress.json")
        partial.rename(final)
        for old in checkpoints(self.folder)[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def _run_info(self) -> RunInfo:
        config: Any = OmegaConf.to_container(self.cfg, resolve=True)
        steps = sum(count_steps(len(data), self.learner.config) for data in self.stream.train)
        if self.learner.strategy.gradient_free:
            steps = 0
        pretrained = self.learner.model.pretrained
        return RunInfo(self.folder, config, self.names, pretrained, self.stream, steps)


def create_loggers(cfg: DictConfig) -> list[Logger]:
    """The loggers that `cfg.logger` names, in that order."""
    nodes = cfg.get("logger") or {}
    return [build(node, f"logger.{name}") for name, node in nodes.items()]


def create_run_folder(cfg: DictConfig, names: dict[str, str]) -> Path:
    """Make `<output>/<stream>/<strategy>/<backbone>/<date-time>-seed<seed>`, never an existing one."""
    parent = Path(cfg.output) / names["stream"] / names["strategy"] / names["backbone"]
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-seed{cfg.seed}"
    try:
        for attempt in range(1000):
            folder = parent / (f"{stem}-{attempt}" if attempt else stem)
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise ConfigurationError(
            f"output={cfg.output}: cannot write there ({error}). Give another folder: output=…"
        ) from None
    raise PalimpsestError(f"{parent} holds a thousand runs of this second.")


def load_run_config(folder: Path) -> DictConfig:
    """The resolved configuration of the run in `folder`."""
    file = folder / "config.yaml"
    if not file.exists():
        raise ConfigurationError(
            f"resume={folder}: there is no config.yaml, so this is no run folder."
        )
    cfg = OmegaConf.load(file)
    assert isinstance(cfg, DictConfig)
    return cfg


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = (folder / "checkpoints").glob("*")
    return sorted(path for path in found if path.is_dir() and path.suffix != ".partial")


def _read(logged: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logged.items()}
