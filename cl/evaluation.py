"""The accuracy matrix, counted in integers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cl.checkpoint import replace_text
from cl.data import ArrayDataset, Union
from cl.errors import WeightsError
from cl.learner import Learner
from cl.metrics import Matrix
from cl.stream import Stream


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
        for _, row in groupby(cells, key=attrgetter("experience")):
            self.add(list(row))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccuracyMatrix) and self.by_experience == other.by_experience

    def add(self, row: list[Cell]) -> None:
        """Add the cells of the next experience, by task."""
        self.by_experience.append(row)
        own, within = [c.accuracy for c in row], [c.accuracy_within_task for c in row]
        self.shares.append((np.array(own), np.array(within)))

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
        """Make a CSV file of all rows."""
        replace_text(file, self.to_csv())

    def append_to(self, file: Path) -> None:
        """Add the newest row to a CSV file that has those before it."""
        text = _to_csv(self.by_experience[-1], header=False)
        with file.open("a") as lines:
            lines.write(text)

    @classmethod
    def read(cls, file: Path, rows: int) -> AccuracyMatrix:
        """The first `rows` experiences of a CSV file."""
        lines = file.read_text().splitlines() if file.exists() else []
        cells = []
        for values in csv.DictReader(lines):
            try:
                cell = Cell(**{field.name: int(values[field.name]) for field in fields(Cell)})
            except (KeyError, TypeError, ValueError):
                break  # a line that was being written when the run was killed
            if cell.experience < rows:
                cells.append(cell)
        matrix = cls(cells)
        if matrix.rows != rows:
            raise WeightsError(f"{file} lacks experiences: {matrix.rows} of {rows} are there.")
        return matrix


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


def evaluate(learner: Learner, stream: Stream, experience: int) -> list[Cell]:
    """A row of the matrix: the learner's answers on the test images of every task seen so far.

    One pass over all of them, unless the learner must be told the task. Where the next experience is only
    another domain of the same classes, its test images too: the forward transfer needs them.
    """
    ahead = stream.scenario == "domain-incremental" and experience + 1 < len(stream)
    ahead = ahead and stream.seen[experience + 1] == stream.seen[experience]
    tests = [stream.test[task] for task in range(experience + 1 + ahead)]
    told = stream.scenario == "task-incremental"
    if told or learner.strategy.needs_task_id:
        counts = [count_correct(learner, [test], task)[0] for task, test in enumerate(tests)]
    else:
        groups = [list(same) for _, same in groupby(tests, key=lambda t: t.images.shape[1:])]
        counts = [count for group in groups for count in count_correct(learner, group)]
    return [
        Cell(experience, task, len(test), within if told else correct, within)
        for task, (test, (correct, within)) in enumerate(zip(tests, counts, strict=True))
    ]


def count_correct(
    learner: Learner, tests: Sequence[ArrayDataset], task: int | None = None
) -> list[tuple[int, int]]:
    """For each test set, how many images get their class among all seen, and among the set's own classes."""
    union = Union(tests)
    correct, within = torch.zeros(2, len(tests), dtype=torch.int64)
    own = own_classes(tests, learner.seen)
    for batch, logits in learner.answers(union, task):
        labels = batch.labels.cpu()
        part = torch.from_numpy(union.part_of(batch.positions))
        right, right_within = learner.strategy.objective.right(logits, labels, own[part])
        correct.index_add_(0, part, right)
        within.index_add_(0, part, right_within)
    return list(zip(correct.tolist(), within.tolist(), strict=True))


def own_classes(tests: Sequence[ArrayDataset], seen: int) -> Tensor:
    """Which of the classes seen each test set has: a mask, sets × classes."""
    mask = torch.zeros(len(tests), seen, dtype=torch.bool)
    for row, test in zip(mask, tests, strict=True):
        row[torch.from_numpy(np.unique(test.targets))] = True
    return mask
