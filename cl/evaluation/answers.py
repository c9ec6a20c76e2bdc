"""What was answered: class and confidence of every test image after every experience, in one file.

The file is a sequence of `.npy` arrays, one for each experience, so it can be appended to. A row of such an
array is an image: its task, the class that was answered, and the softmax of that answer as float16; tasks in
order, and the images of each as in its test set. A kill may cut the last array short: it is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from cl.data.arrays import Array
from cl.data.splits import DAMAGE
from cl.errors import DataError
from cl.matrix import AccuracyMatrix, Cell

FILE = "answers.npy"
SMALL = np.dtype([("task", "<u2"), ("class", "<u2"), ("confidence", "<f2")])
LARGE = np.dtype([("task", "<u4"), ("class", "<u4"), ("confidence", "<f2")])
HEADER = 10_000
"""The most characters that the header of an array may have."""


class Answers:
    """Collects the answers of one pass, and writes them."""

    def __init__(self) -> None:
        self.parts: dict[int, list[Array]] = {}

    def add(self, task: int, outputs: Tensor) -> None:
        """Take the answers to the next images of a task. outputs: logits, B × classes."""
        classes = outputs.argmax(1)  # as the matrix counts them
        highest = outputs.gather(1, classes[:, None]).squeeze(1)
        confidence = (highest - outputs.logsumexp(1)).exp().nan_to_num(0.0)
        part = np.empty(len(outputs), dtype=LARGE)
        part["task"], part["class"] = task, classes.numpy()
        part["confidence"] = confidence.numpy()
        self.parts.setdefault(task, []).append(part)

    def take(self) -> Array:
        """All that was collected, by task; it is forgotten here."""
        parts = [part for _, several in sorted(self.parts.items()) for part in several]
        self.parts = {}
        whole = np.concatenate(parts) if parts else np.empty(0, dtype=LARGE)
        largest = max(int(whole[name].max(initial=0)) for name in ("task", "class"))
        return whole.astype(SMALL) if largest <= np.iinfo(np.uint16).max else whole


def append(rows: Array, file: Path) -> None:
    """Add the answers of one experience."""
    with file.open("ab") as out:
        np.save(out, rows)
        out.flush()
        os.fsync(out.fileno())


def keep(file: Path, experiences: int) -> bool:
    """Cut the file to the answers of so many experiences; False, and no file, if it has not that many."""
    if experiences and file.exists():
        with suppress(DataError), file.open("r+b") as content:
            arrays = list(islice(_arrays(content, file), experiences))
            if len(arrays) == experiences:
                content.truncate()
                return True
    file.unlink(missing_ok=True)
    return not experiences


def read(file: Path, matrix: AccuracyMatrix, labels: Sequence[Array]) -> list[Array]:
    """The answers of every experience of `matrix`; DataError unless the right ones are as many as it says.

    labels: of each task's test images.
    """
    try:
        with file.open("rb") as content:
            found = list(islice(_arrays(content, file), matrix.rows))
    except FileNotFoundError:
        raise DataError(
            f"{file} is missing: the run kept no answers (evaluation.answers=false, or an older version)."
        ) from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}.") from None
    if len(found) < matrix.rows:
        raise DataError(f"{file} lacks experiences: {len(found)} of {matrix.rows} are there.")
    for experience, rows in enumerate(found):
        try:
            _check(rows, matrix.row(experience), labels)
        except ValueError as error:
            raise DataError(f"{file} is damaged: experience {experience} {error}.") from None
    return found


def _check(rows: Array, cells: Sequence[Cell], labels: Sequence[Array]) -> None:
    """A ValueError that says why these cannot be the answers of an experience."""
    tasks, starts = np.unique(rows["task"], return_index=True)
    lengths = [len(labels[task]) for task in tasks.tolist() if task < len(labels)]
    in_turn = bool((np.diff(rows["task"].astype(np.int64)) >= 0).all())
    if not in_turn or np.diff([*starts, len(rows)]).tolist() != lengths:
        raise ValueError("does not hold the images of each task in turn")
    confidence = rows["confidence"]
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError("has a confidence that is no share")
    for cell in cells:
        answered = rows["class"][rows["task"] == cell.task]
        there = len(answered) == cell.images
        right = int((answered == labels[cell.task]).sum()) if there else 0
        if not there or right != cell.correct:
            raise ValueError(
                f"has {right} right answers of {len(answered)} on task {cell.task}, but "
                f"accuracy_matrix.csv {cell.correct} of {cell.images}"
            )


def _arrays(content: BinaryIO, file: Path) -> Iterator[Array]:
    """The arrays of the file one by one, each of them whole; after each, `content` stands at its end."""
    while (rows := read_array(content, file, (SMALL, LARGE))) is not None:
        yield rows


def read_array(content: BinaryIO, file: Path, kinds: tuple[np.dtype[Any], ...]) -> Array | None:
    """The next `.npy` array, one-dimensional and of one of `kinds`; None at the end, or if it is cut short.

    No more is read, or made room for, than the file has.
    """
    here = content.tell()
    left = content.seek(0, os.SEEK_END) - here
    content.seek(here)
    try:
        version = np.lib.format.read_magic(content)
        shape, _, dtype = np.lib.format.read_array_header_1_0(content, max_header_size=HEADER)
    except (*DAMAGE, TypeError, MemoryError) as error:
        if left < HEADER and "EOF" in str(error):
            return None
        raise DataError(f"{file} is damaged: {str(error).partition(chr(10))[0][:200]}.") from None
    if version != (1, 0) or dtype not in kinds or len(shape) != 1 or shape[0] < 0:
        raise DataError(f"{file} is damaged: an array in it cannot be {dtype} of shape {shape}.")
    size = shape[0] * dtype.itemsize
    if size > here + left - content.tell():
        return None
    return np.frombuffer(content.read(size), dtype=dtype)
