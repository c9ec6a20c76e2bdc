"""What a learner is given from Python: images and labels of every kind."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.fuzz.arrays import ARRAYS
from benchmarks.fuzz.harness import Kind
from benchmarks.fuzz.images import draw
from benchmarks.fuzz.learners import taught
from benchmarks.toys import DATA, SIDE, pixels, save_pixels
from cl.data.files import file_images
from cl.errors import PalimpsestError, shown
from cl.learner import Learner

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
EITHER = (
    *("blanks", "two forms of one letter", "huge integers", "negative integers", "a generator"),
    "control characters",
)
"""Taken, or refused."""


class Labels(Kind):
    """What is given to `learn`: uint8 images and names or numbers, and an error for all else.

    After an error the learner is what it was.
    """

    name = "learn(images, labels)"
    files = ("given.json",)
    share = 1.5

    def make(self, folder: Path) -> None:
        save_pixels(folder / DATA)
        taught("strategy=ewc", "plugin=[ema]").save(folder / "learner")
        draw(folder / "photos", "png")
        (folder / "photos" / "class 1" / "13.png").write_bytes(b"damaged")
        (folder / "given.json").write_text(json.dumps(["as they are", "integers", 0]))

    def mutate(self, folder: Path, chance: Random) -> str:
        images, labels = "as they are", chance.choice(list(LABELS))
        if chance.random() < 0.4:
            images, labels = chance.choice(("one cannot be read", *ARRAYS)), "integers"
        given = [images, labels, chance.randrange(1000)]
        (folder / "given.json").write_text(json.dumps(given))
        return f"images {images}, labels {labels}"

    def read(self, folder: Path) -> Any:
        deed, chosen, seed = json.loads((folder / "given.json").read_text())
        learner, labels = Learner.load(folder / "learner"), LABELS[chosen](Random(seed))
        before, images = state_of(learner, folder / "before"), pixels(16)[0]
        if deed == "one cannot be read":
            files = sorted((folder / "photos").glob("*/*"))
            images, labels = file_images(files, SIDE, "files"), labels[: len(files)]
        elif deed != "as they are":
            images = ARRAYS[deed](images)
        try:
            learner.learn(images, labels)
        except PalimpsestError:
            if state_of(learner, folder / "after") != before:
                return "after an error the learner is not what it was"
            if (deed, chosen in RIGHT) == ("as they are", True):
                return f"refused: {chosen}"
            raise
        if images.dtype != np.uint8:
            return f"taken: images of {images.dtype}"
        if chosen not in (*RIGHT, *EITHER):
            return f"taken: {chosen}, as the classes {learner.class_names[len(before[0]) :]}"
        if not all(name.isprintable() for name in learner.class_names):
            return f"{chosen}: a class that cannot be printed: {learner.class_names}"
        wanted = [*before[0], *(clean(label) for label in LABELS[chosen](Random(seed)))]
        if list(dict.fromkeys(wanted)) != list(learner.class_names):
            return f"{chosen}: the classes are {learner.class_names}"
        return ""

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return found or None


def state_of(learner: Learner, folder: Path) -> Any:
    """All that would be saved of a learner."""
    learner.save(folder)
    return learner.class_names, {file.name: file.read_bytes() for file in folder.iterdir()}


def clean(label: Any) -> str:
    """What a class of this label is called."""
    text = str(int(label) if torch.is_tensor(label) else label)
    return shown(unicodedata.normalize("NFC", text).strip())


KINDS_HERE = (Labels,)
