"""A row of the accuracy matrix: how many test images get the right answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from cl.data import ArrayDataset, Batch, Union
from cl.learner import Learner
from cl.matrix import AccuracyMatrix, Cell
from cl.stream import Stream

__all__ = ["AccuracyMatrix", "Cell", "count_correct", "evaluate", "own_classes", "pass_over"]

Watch = Callable[[int, Batch, Tensor], None]
"""Is shown a task, some of its test images, and the answers to them: see `Metric.batch`."""


def evaluate(
    learner: Learner, stream: Stream, experience: int, watch: Watch | None = None, reach: int = 0
) -> list[Cell]:
    """A row of the matrix: the learner's answers on the test images of every task seen so far.

    One pass over all of them, unless the learner must be told the task. Where the next experience is only
    another domain of the same classes, its test images too: the forward transfer needs them. `watch` is
    shown all answers, and those on the tasks that follow, up to `reach` tasks in all.
    """
    ahead = stream.scenario == "domain-incremental" and experience + 1 < len(stream)
    ahead = ahead and stream.seen[experience + 1] == stream.seen[experience]
    row = experience + 1 + ahead
    counts = pass_over(learner, stream, max(row, reach), watch)[:row]
    told = stream.scenario == "task-incremental"
    return [
        Cell(experience, task, len(stream.test[task]), within if told else correct, within)
        for task, (correct, within) in enumerate(counts)
    ]


def pass_over(
    learner: Learner, stream: Stream, tasks: int, watch: Watch | None = None
) -> list[tuple[int, int]]:
    """As `count_correct`, for the first `tasks` tasks; a task that must be told has been learnt."""
    told = stream.scenario == "task-incremental"
    if told or learner.strategy.needs_task_id:
        return [
            count_correct(learner, [stream.test[task]], task, watch, task, told)[0]
            for task in range(min(tasks, learner.experiences))
        ]
    tests = [stream.test[task] for task in range(tasks)]
    counts: list[tuple[int, int]] = []
    for _, same in groupby(tests, key=lambda test: test.images.shape[1:]):
        counts += count_correct(learner, list(same), watch=watch, first=len(counts))
    return counts


def count_correct(
    learner: Learner,
    tests: Sequence[ArrayDataset],
    task: int | None = None,
    watch: Watch | None = None,
    first: int = 0,
    told: bool = False,
) -> list[tuple[int, int]]:
    """For each test set, how many images get their class among all seen, and among the set's own classes.

    watch: is shown the part of each batch that is of one set, numbered from `first` on. told: what it is
    shown is an answer among the set's own classes.
    """
    union = Union(tests)
    correct, within = torch.zeros(2, len(tests), dtype=torch.int64)
    own = own_classes(tests, learner.seen)
    for batch, logits in learner.answers(union, task):
        labels = batch.labels.cpu()
        part = torch.from_numpy(union.part_of(batch.positions))
        right, right_within = learner.strategy.objective.right(logits, labels, own[part])
        correct.index_add_(0, part, right)
        within.index_add_(0, part, right_within)
        if watch is None:
            continue
        for index in np.unique(part.numpy()).tolist():
            rows = (part == index).nonzero().flatten()
            start = int(union.ends[index]) - len(tests[index])
            some = Batch(batch.images[rows], labels[rows], batch.positions[rows.numpy()] - start)
            answers = logits[rows].masked_fill(~own[index], -torch.inf) if told else logits[rows]
            watch(first + index, some, answers)
    return list(zip(correct.tolist(), within.tolist(), strict=True))


def own_classes(tests: Sequence[ArrayDataset], seen: int) -> Tensor:
    """Which of the classes seen each test set has: a mask, sets × classes."""
    mask = torch.zeros(len(tests), seen, dtype=torch.bool)
    for row, test in zip(mask, tests, strict=True):
        labels = np.unique(test.targets)
        row[torch.from_numpy(labels[labels < seen])] = True
    return mask
