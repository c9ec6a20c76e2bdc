"""The accuracy matrix, counted in integers."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

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


@dataclass
class AccuracyMatrix:
    """R[i, j]: accuracy on task j after experience i; grows by rows."""

    cells: list[Cell] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many experiences have been evaluated."""
        return 1 + max((cell.experience for cell in self.cells), default=-1)

    def values(self, within_task: bool = False) -> Matrix:
        """R as shares, rows × rows; NaN where it was not measured."""
        R = np.full((self.rows, self.rows), np.nan)
        for cell in self.cells:
            if cell.task < self.rows:  # the last row may look one task ahead
                correct = cell.correct_within_task if within_task else cell.correct
                R[cell.experience, cell.task] = correct / cell.images
        return R

    def row(self, experience: int) -> list[Cell]:
        """The cells of one experience, by task."""
        return [cell for cell in self.cells if cell.experience == experience]

    def to_csv(self) -> str:
        """One line per cell; the counts are exact."""
        text = io.StringIO()
        names = ["experience", "task", "images", "correct", "accuracy"]
        names += ["correct_within_task", "accuracy_within_task"]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        for cell in self.cells:
            accuracy = f"{cell.correct / cell.images:.6f}"
            within = f"{cell.correct_within_task / cell.images:.6f}"
            writer.writerow({**asdict(cell), "accuracy": accuracy, "accuracy_within_task": within})
        return text.getvalue()


def evaluate(learner: Learner, stream: Stream, experience: int) -> list[Cell]:
    """A row of the matrix: the learner's answers on the test images of every task seen so far.

    Where the next experience is only another domain of the same classes, its test images too: the forward
    transfer needs them.
    """
    ahead = stream.scenario == "domain-incremental" and experience + 1 < len(stream)
    ahead = ahead and stream.seen[experience + 1] == stream.seen[experience]
    tasks = range(experience + 1 + ahead)
    return [evaluate_task(learner, stream, experience, task) for task in tasks]


def evaluate_task(learner: Learner, stream: Stream, experience: int, task: int) -> Cell:
    """One cell of the matrix."""
    test = stream.test[task]
    labels = torch.from_numpy(test.targets)
    told = stream.scenario == "task-incremental"
    logits = learner.logits(test, task if told or learner.strategy.needs_task_id else None)
    within = torch.full_like(logits, -torch.inf)
    classes = torch.unique(labels)
    within[:, classes] = logits[:, classes]
    correct_within_task = int((within.argmax(1) == labels).sum())
    correct = correct_within_task if told else int((logits.argmax(1) == labels).sum())
    return Cell(experience, task, len(test), correct, correct_within_task)
