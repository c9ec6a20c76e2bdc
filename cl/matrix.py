"""The accuracy matrix, counted in integers; as a file it is checked when it is read."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np

from cl.checkpoint import write_unless_there
from cl.errors import DataError
from cl.metrics import Matrix
from cl.stored import require_file

MATRIX_BYTES = 1 << 28
ROUNDING = 1e-6
"""The shares in the file have six decimals."""


@dataclass(frozen=True)
class Cell:
    """The answers for the test images of one task after one experience.

    correct: the class was right among all classes seen, or among the task's where the stream tells the task.
    correct_within_task: it was right among the classes of this task (the "task mask").
    """

    experience: int
    task: int
    images: int
    correct: int
    correct_within_task: int

    @property
    def accuracy(self) -> float:
        """The share of right answers among all classes seen."""
        return self.correct / self.images

    @property
    def accuracy_within_task(self) -> float:
        """The share of right answers among the task's classes."""
        return self.correct_within_task / self.images


COLUMNS = (
    *("experience", "task", "images", "correct", "accuracy"),
    *("correct_within_task", "accuracy_within_task"),
)


class AccuracyMatrix:
    """R[i, j]: accuracy on task j after experience i; grows by rows."""

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        self.by_experience: list[list[Cell]] = []
        self.shares: list[tuple[Matrix, Matrix]] = []
        self._digest = hashlib.sha256()
        for _, row in groupby(cells, key=attrgetter("experience")):
            self.add(list(row))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccuracyMatrix) and self.by_experience == other.by_experience

    def add(self, row: list[Cell]) -> None:
        """Add the cells of the next experience, by task."""
        self.by_experience.append(row)
        own, within = [c.accuracy for c in row], [c.accuracy_within_task for c in row]
        self.shares.append((np.array(own), np.array(within)))
        self._digest.update(_to_csv(row, header=False).encode())

    @property
    def digest(self) -> str:
        """A hash of all rows, which tells this matrix from any other."""
        return self._digest.hexdigest()

    @property
    def cells(self) -> list[Cell]:
        """All cells, row after row."""
        return [cell for row in self.by_experience for cell in row]

    @property
    def rows(self) -> int:
        """How many experiences have been evaluated."""
        return len(self.by_experience)

    def values(self, within_task: bool = False) -> Matrix:
        """R as shares, rows × rows; NaN where it was not measured."""
        R = np.full((self.rows, self.rows), np.nan)
        for index, shares in enumerate(self.shares):
            row = shares[within_task][: self.rows]  # the last row may look one task ahead
            R[index, : len(row)] = row
        return R

    def row(self, experience: int) -> list[Cell]:
        """The cells of one experience, by task."""
        return self.by_experience[experience]

    def to_csv(self) -> str:
        """One line per cell; the counts are exact."""
        return _to_csv(self.cells, header=True)

    def write(self, file: Path) -> None:
        """Make a CSV file of all rows, unless it is there."""
        write_unless_there(file, self.to_csv())

    def append_to(self, file: Path) -> None:
        """Add the newest row to a CSV file that has those before it."""
        text = _to_csv(self.by_experience[-1], header=False)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(text)
            lines.flush()
            os.fsync(lines.fileno())  # the checkpoint that is written next must not be ahead of it

    @classmethod
    def read(cls, file: Path, rows: int | None = None) -> AccuracyMatrix:
        """The first `rows` experiences of a CSV file, or all of them; DataError if they cannot be right."""
        require_file(file, MATRIX_BYTES)
        try:
            matrix = cls(_parse(file.read_text(encoding="utf-8"), rows))
        except (OSError, ValueError) as error:
            raise DataError(f"{file} is damaged: {error}") from None
        if matrix.rows < (rows or 0) or (rows is None and not matrix.rows):
            raise DataError(f"{file} lacks experiences: {matrix.rows} of {rows or 1} are there.")
        return matrix


def _parse(text: str, rows: int | None) -> list[Cell]:
    """The cells of the first `rows` experiences; a ValueError says which line cannot be right."""
    lines = text.splitlines()
    if text and not text.endswith("\n"):
        lines.pop()  # it was being written when the run was killed
    if lines and lines[0] != ",".join(COLUMNS):
        raise ValueError(f"its first line must be {','.join(COLUMNS)}.")
    cells: list[Cell] = []
    images: dict[int, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            cell = _cell(dict(zip(COLUMNS, line.split(","), strict=True)))
            if rows is not None and cell.experience >= rows:
                break  # it is going to be made again
            _check_place(cell, cells[-1] if cells else None)
            if images.setdefault(cell.task, cell.images) != cell.images:
                raise ValueError(
                    f"{cell.images} images, but {images[cell.task]} in an earlier row."
                )
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        cells.append(cell)
    if cells and cells[-1].task < cells[-1].experience:
        raise ValueError(f"the row of experience {cells[-1].experience} is not complete.")
    return cells


def _cell(values: Mapping[str, str]) -> Cell:
    """What a line says; a ValueError if it is no possible count."""
    counts = {field.name: values[field.name] for field in fields(Cell)}
    for name, value in counts.items():
        if not re.fullmatch("[0-9]{1,18}", value, re.ASCII):
            raise ValueError(f"{name} must be a count, not {value[:40]!r}.")
    cell = Cell(**{name: int(value) for name, value in counts.items()})
    if not 0 <= cell.correct <= cell.correct_within_task <= cell.images or not cell.images:
        raise ValueError(
            f"{cell.correct} correct, {cell.correct_within_task} within the task, of {cell.images} images."
        )
    for name in ("accuracy", "accuracy_within_task"):
        if not abs(float(values[name]) - getattr(cell, name)) <= ROUNDING:
            raise ValueError(f"{name} is {values[name][:40]}, but the counts say otherwise.")
    return cell


def _check_place(cell: Cell, before: Cell | None) -> None:
    """A ValueError unless `cell` may come after `before`: row after row, and in each task after task."""
    if before is None:
        right = (cell.experience, cell.task) == (0, 0)
    elif cell.experience == before.experience:
        ahead = cell.task <= cell.experience + 1  # a row may look one task ahead
        right = cell.task == before.task + 1 and ahead
    else:
        whole = before.task >= before.experience
        right = whole and (cell.experience, cell.task) == (before.experience + 1, 0)
    if not right:
        after = f" after {before.experience}, {before.task}" if before else " first"
        raise ValueError(f"experience {cell.experience}, task {cell.task} cannot come{after}.")


def _to_csv(cells: Iterable[Cell], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    for cell in cells:
        shares = {"accuracy": cell.accuracy, "accuracy_within_task": cell.accuracy_within_task}
        rounded = {name: f"{share:.6f}" for name, share in shares.items()}
        writer.writerow({**asdict(cell), **rounded})
    return text.getvalue()
