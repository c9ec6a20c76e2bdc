"""A stored learner, the weights of a backbone, the feature cache, and labels that `learn` is given."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.fuzz.harness import Kind
from benchmarks.toys import DATA, SIDE, compose, pixels, save_pixels
from cl.checkpoint import save_module, seal
from cl.data import ArrayDataset
from cl.errors import PalimpsestError
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
        save_module(learner.model.backbone, folder / "weights.safetensors")

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


LABELS: dict[str, Callable[[Random], Any]] = {
    "integers": lambda c: np.array([c.randrange(4) for _ in range(16)], c.choice(KINDS)),
    "words": lambda c: [c.choice(("0", "cat", "dog", "naïve")) for _ in range(16)],
    "a list of integers": lambda c: [c.randrange(9) for _ in range(16)],
    "numpy words": lambda c: np.array([c.choice(("cat", "dog")) for _ in range(16)]),
    "blanks": lambda c: [c.choice(("cat", "cat ", "\tcat", " cat\n")) for _ in range(16)],
    "two forms of one letter": lambda c: [c.choice(("e\u0301", "\u00e9")) for _ in range(16)],
    "floats": lambda c: np.array([float(c.randrange(4)) for _ in range(16)]),
    "a list of floats": lambda c: [c.choice((0.0, 1.0, 0.5)) for _ in range(16)],
    "truth": lambda c: np.array([c.random() < 0.5 for _ in range(16)]),
    "a list of truth": lambda c: [c.random() < 0.5 for _ in range(16)],
    "not numbers": lambda c: np.full(16, np.nan),
    "bytes": lambda c: np.array([b"cat", b"dog"] * 8),
    "one-hot": lambda c: np.eye(4, dtype=np.int64)[[c.randrange(4) for _ in range(16)]],
    "a column": lambda c: np.array([[c.randrange(4)] for _ in range(16)]),
    "a scalar": lambda c: np.int64(3),
    "too few": lambda c: np.arange(c.randrange(16)),
    "too many": lambda c: list(range(17 + c.randrange(9))),
    "none": lambda c: [None] * 16,
    "mixed": lambda c: [c.choice((0, "0", "cat", 1.5, None)) for _ in range(15)] + [None],
    "empty words": lambda c: [c.choice(("", " ", "\n")) for _ in range(16)],
    "control characters": lambda c: [c.choice(("\x1b[31m", "a\nb", "\u202ecat", "\0"))] * 16,
    "complex": lambda c: np.full(16, 1j),
    "dates": lambda c: np.full(16, "2020-01-01", "datetime64[D]"),
    "records": lambda c: np.zeros(16, [("a", "i4")]),
    "a text": lambda c: "0123456789012345",
    "a set": lambda c: set(range(16)),
    "a generator": lambda c: (i % 3 for i in range(16)),
    "lists": lambda c: [[0]] * 15 + [[0, 1]],
    "a tensor": lambda c: torch.arange(16) % 3,
    "a tensor of floats": lambda c: torch.arange(16).float(),
    "objects": lambda c: np.array([object()] * 16),
    "a dictionary": lambda c: dict.fromkeys(range(16), 0),
    "huge integers": lambda c: [10**30 + c.randrange(2) for _ in range(16)],
    "negative integers": lambda c: [-1 - c.randrange(2) for _ in range(16)],
}
KINDS = (np.int64, np.uint8, np.int8, np.int32, np.uint16)
RIGHT = ("integers", "words", "a list of integers", "numpy words", "a tensor")
EITHER = ("blanks", "two forms of one letter", "huge integers", "negative integers", "too few")
"""Taken (as few classes as there are), or refused."""


class Labels(Kind):
    """What is given to `learn` as labels, or as images: names or numbers, and an error for all else.

    After an error the learner is what it was.
    """

    name = "labels"
    files = ("labels.json",)
    share = 0.8

    def make(self, folder: Path) -> None:
        save_pixels(folder / DATA)
        taught("strategy=simplecil").save(folder / "learner")
        (folder / "labels.json").write_text(json.dumps(["integers", 0]))

    def mutate(self, folder: Path, chance: Random) -> str:
        chosen = chance.choice(list(LABELS))
        (folder / "labels.json").write_text(json.dumps([chosen, chance.randrange(1000)]))
        return chosen

    def read(self, folder: Path) -> Any:
        chosen, seed = json.loads((folder / "labels.json").read_text())
        learner = Learner.load(folder / "learner")
        before = learner.class_names, learner.experiences, answers(learner).tobytes()
        labels = LABELS[chosen](Random(seed))
        try:
            learner.learn(pixels(16)[0], labels)
        except PalimpsestError:
            after = learner.class_names, learner.experiences, answers(learner).tobytes()
            if before != after:
                return "after an error the learner is not what it was"
            if chosen in RIGHT:
                return f"refused: {chosen}"
            raise
        if chosen not in (*RIGHT, *EITHER):
            return f"taken: {chosen}, as the classes {learner.class_names[len(before[0]) :]}"
        wanted = [*before[0], *(clean(label) for label in LABELS[chosen](Random(seed)))]
        if list(dict.fromkeys(wanted)) != list(learner.class_names):
            return f"{chosen}: the classes are {learner.class_names}"
        return ""

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return found or None


def clean(label: Any) -> str:
    """What a class of this label is called."""
    return unicodedata.normalize(
        "NFC", str(int(label) if torch.is_tensor(label) else label)
    ).strip()


KINDS_HERE = (StoredLearner, SealedLearner, Weights, Features, Labels)
