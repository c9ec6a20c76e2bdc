"""A stored learner, the weights of a backbone, and the feature cache."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.fuzz.harness import Kind
from benchmarks.toys import DATA, SIDE, compose, pixels, save_pixels
from cl.checkpoint import save_tensors, seal
from cl.data import ArrayDataset
from cl.experiment import Experiment
from cl.instantiate import build
from cl.learner import Learner


def taught(*overrides: str, experiences: int = 2) -> Learner:
    """A learner that has learnt the first experiences of the toy stream."""
    cfg = compose(*overrides)
    stream = build(cfg.stream, "stream")
    learner = Learner(cfg, stream.info)
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


def answers(learner: Learner) -> np.ndarray:
    """The logits on a few images."""
    return learner.logits(ArrayDataset.unlabelled(pixels(12, seed=2)[0])).numpy()


class StoredLearner(Kind):
    """A learner's folder: every file is sealed, so damage of any kind is noticed."""

    name = "learner"
    files = ("learner/*",)

    def make(self, folder: Path) -> None:
        save_pixels(folder / DATA)
        taught("strategy=ewc", "plugin=[ema]").save(folder / "learner")

    def read(self, folder: Path) -> Any:
        learner = Learner.load(folder / "learner")
        before = answers(learner)
        known = (learner.class_names, learner.experiences, learner.image_shape)
        learner.learn(*pixels(16))
        return known, before.shape, before.tobytes(), answers(learner).tobytes()


class SealedLearner(StoredLearner):
    """The same by somebody who seals it again: other weights are then other weights.

    But what is said must fit together, and numbers must be finite.
    """

    name = "learner, sealed again"
    files = ("learner/learner.json", "learner/state.safetensors")
    whole = False

    def mutate(self, folder: Path, chance: Random) -> str:
        done = super().mutate(folder, chance)
        seal(folder / "learner")
        return done

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        (names, experiences, _), shape, before, after = found
        for logits in (before, after):
            if not np.isfinite(np.frombuffer(logits, np.float32)).all():
                return "logits that are not finite"
        if shape[1] != len(names) or len(set(names)) != len(names):
            return f"{shape[1]} logits for the classes {names}"
        if not all(isinstance(name, str) and name.isprintable() and name for name in names):
            return f"class names that are none: {names}"
        if not isinstance(experiences, int) or experiences < 1:
            return f"it has learnt {experiences} experiences"
        return None


class Weights(Kind):
    """The file of `backbone.weights`. It has no checksum: other finite numbers are other weights."""

    name = "weights"
    files = ("weights.safetensors",)
    share = 0.6

    def make(self, folder: Path) -> None:
        save_pixels(folder / DATA)
        learner = Learner(compose(), build(compose().stream, "stream").info)
        save_tensors(learner.model.backbone.state_dict(), folder / "weights.safetensors")

    def read(self, folder: Path) -> Any:
        cfg = compose("backbone.pretrained=true", "backbone.weights=weights.safetensors")
        learner = Learner(cfg, build(cfg.stream, "stream").info)
        with torch.no_grad():
            features = learner.model.backbone(torch.ones(2, 3, SIDE, SIDE))
        return features.shape, features.numpy().tobytes()

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        if found[0] != expected[0]:
            return f"features of another shape: {found[0]}"
        finite = np.isfinite(np.frombuffer(found[1], np.float32)).all()
        return None if finite else "features that are not finite"


class Features(Kind):
    """The files of the feature cache: a damaged one is left out, and the run is as without it."""

    name = "features"
    files = ("cache/**/*",)

    def make(self, folder: Path) -> None:
        save_pixels(folder / DATA)
        self.read(folder)

    def read(self, folder: Path) -> Any:
        cfg = compose("strategy=simplecil", "cache.dir=cache")
        experiment = Experiment(cfg, loggers=[], folder=folder)
        experiment.run()
        state = (folder / "learner" / "state.safetensors").read_bytes()
        for file in ("config.yaml", "split.npz", ".lock"):
            (folder / file).unlink(missing_ok=True)
        return experiment.matrix.to_csv(), state


KINDS_HERE = (StoredLearner, SealedLearner, Weights, Features)
