"""A row of the accuracy matrix: how many test images get the right answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from cl.data import ArrayDataset, Union
from cl.learner import Learner
from cl.matrix import AccuracyMatrix, Cell
from cl.stream import Stream

__all__ = ["AccuracyMatrix", "Cell", "count_correct", "evaluate", "own_classes"]


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
