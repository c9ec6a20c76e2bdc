"""Data of one's own in arrays: `.npz`, `.npy`, and a prepared folder with its `classes.json`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.fuzz.harness import Kind
from benchmarks.toys import pixels
from cl.stream import Stream
from streams.datasets.arrays import array_folder
from streams.own import arrays


def content(stream: Stream) -> Any:
    """Everything that is in a stream: names, labels, pixels."""
    parts = [part.take(np.arange(len(part))) for part in (*stream.train, *stream.test)]
    return (
        tuple(stream.class_names),
        [labels.tolist() for _, labels in parts],
        [images.shape for images, _ in parts],
        b"".join(np.ascontiguousarray(images).tobytes() for images, _ in parts),
    )


def misfit(found: Any) -> str | None:
    """What is wrong with the content of a stream, whatever its images show."""
    names, labels, shapes, _ = found
    if not all(name and name.isprintable() and name == name.strip() for name in names):
        return f"class names that should not be shown: {names}"
    if any(len(each) != shape[0] for each, shape in zip(labels, shapes, strict=True)):
        return "other numbers of images and labels"
    seen = {label for each in labels for label in each}
    return None if seen <= set(range(len(names))) else f"labels {sorted(seen)} of {len(names)}"


class Arrays(Kind):
    """A `.npz` file, whose checksums notice damage; well-formed arrays of another kind are refused."""

    name = "data: npz"
    files = ("toy.npz",)

    def make(self, folder: Path) -> None:
        images, labels = pixels()
        np.savez(folder / "toy.npz", images=images, labels=labels)

    def mutate(self, folder: Path, chance: Random) -> str:
        if chance.random() < 0.6:
            return super().mutate(folder, chance)
        stored = dict(np.load(folder / "toy.npz"))
        done = odd_arrays(stored, chance)
        save = chance.choice((np.savez, np.savez_compressed))
        save(folder / "toy.npz", **stored)
        return f"toy.npz: {done}"

    def read(self, folder: Path) -> Any:
        return content(arrays("toy.npz", tasks=2))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        with np.load(folder / "toy.npz") as stored:  # what an independent reader finds in it
            images, labels = stored["images"], stored["labels"]
        if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
            return f"{images.dtype} images and {labels.dtype} labels were taken"
        if sum(len(each) for each in found[1]) != len(labels):
            return "some images are missing"
        return misfit(found)


class Columns(Arrays):
    """Images and labels in `.npy` files, which have no checksum: other pixels are other pixels."""

    name = "data: npy"
    files = ("images.npy", "labels.npy")

    def make(self, folder: Path) -> None:
        images, labels = pixels()
        np.save(folder / "images.npy", images)
        np.save(folder / "labels.npy", labels)

    def mutate(self, folder: Path, chance: Random) -> str:
        if chance.random() < 0.6:
            return Kind.mutate(self, folder, chance)
        stored = {name: np.load(folder / f"{name}.npy") for name in ("images", "labels")}
        done = odd_arrays(stored, chance)
        for name in ("images", "labels"):
            if name in stored:
                np.save(folder / f"{name}.npy", stored[name])
            else:
                (folder / f"{name}.npy").unlink()
        return done

    def read(self, folder: Path) -> Any:
        return content(arrays("images.npy", labels="labels.npy", tasks=2))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        labels = np.load(folder / "labels.npy")
        if sum(len(each) for each in found[1]) != len(labels):
            return "some images are missing"
        return misfit(found)


class ArrayFolder(Kind):
    """A prepared folder: `{train,test}_{images,labels}.npy` and `classes.json`."""

    name = "data: classes.json"
    files = ("prepared/classes.json", "prepared/classes.json", "prepared/*.npy")

    def make(self, folder: Path) -> None:
        (folder / "prepared").mkdir()
        for part, count in (("train", 60), ("test", 30)):
            images, labels = pixels(count)
            np.save(folder / "prepared" / f"{part}_images.npy", images)
            np.save(folder / "prepared" / f"{part}_labels.npy", labels)
        names = [f"class {i}" for i in range(6)]
        (folder / "prepared" / "classes.json").write_text(json.dumps(names))

    def read(self, folder: Path) -> Any:
        data = array_folder("prepared", Path("prepared"))
        stream = Stream.from_arrays(
            data.train.images, data.train.labels, 2, data.test.images, data.test.labels,
            data.class_names,
        )  # fmt: skip
        return content(stream)

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        names = found[0]
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            return f"class names that are none: {names}"
        return misfit(found)


def odd_arrays(stored: dict[str, Any], chance: Random) -> str:
    """Make one of the arrays another kind of array, or a missing one; says what was done."""
    name = chance.choice(list(stored))
    deed, change = chance.choice(list(ARRAYS.items()))
    changed = change(stored.pop(name))
    if changed is not None:
        stored[name] = changed
    return f"{name}: {deed}"


def _sprinkled(array: np.ndarray, value: Any, kind: Any) -> np.ndarray:
    changed = array.astype(kind)
    changed.reshape(-1)[0] = value
    return changed


ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "missing": lambda a: None,
    "floats": lambda a: a.astype(np.float64),
    "not a number": lambda a: _sprinkled(a, np.nan, np.float32),
    "negative": lambda a: _sprinkled(a, -7, np.int64),
    "huge": lambda a: _sprinkled(a, 2**62, np.int64),
    "truth": lambda a: a.astype(bool),
    "texts": lambda a: a.astype(str),
    "objects": lambda a: a.astype(object),
    "complex": lambda a: a.astype(complex),
    "dates": lambda a: a.astype("datetime64[s]"),
    "records": lambda a: np.zeros(len(a), [("x", "i4")]),
    "flat": lambda a: a.reshape(-1),
    "one more axis": lambda a: a[:, None],
    "a scalar": lambda a: a.reshape(-1)[0],
    "no rows": lambda a: a[:0],
    "one row": lambda a: a[:1],
    "fewer rows": lambda a: a[:-3],
    "all alike": lambda a: np.zeros_like(a),
    "another byte order": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "in another order in memory": lambda a: np.asfortranarray(a),
    "gaps": lambda a: a * 2,
    "no height": lambda a: a[:, :0] if a.ndim == 4 else a,
    "two channels": lambda a: a[..., :2] if a.ndim == 4 else a,
}


KINDS_HERE = (Arrays, Columns, ArrayFolder)
