"""Continual evaluation inside the tasks: what the accuracy does between two experiences."""

from __future__ import annotations

import numpy as np

from cl.errors import require
from cl.evaluation.drift import parts, spread
from cl.evaluation.metric import Metric, Numbers, Undefined
from cl.evaluation.row import count_correct
from cl.metrics import Matrix
from cl.strategy import Progress


class ContinualEvaluation(Metric):
    """Accuracy on a fixed sample of each task seen, every few steps (De Lange et al., 2023).

    With A_i(n), the accuracy on task i at evaluation n, of k tasks so far, the last of them k:
    minimum_accuracy: mean over i < k of the lowest A_i since task i was learnt.
    worst_case_accuracy: A_k / k + (1 − 1/k) · minimum_accuracy, with A_k now.
    windowed_forgetting, windowed_plasticity: mean over tasks of the largest fall (rise) of A_i within
    `window` evaluations in a row. stability_gap: how far A_i falls inside an experience below both of its
    ends, mean over experiences and the tasks before each.

    every: steps between two evaluations; the last step of an experience has one too. images: of each task's
    test set, spread evenly. The curves are series of the training.
    """

    needs, when = "learner", "after"

    def __init__(self, every: int = 10, images: int = 100, window: int = 10) -> None:
        super().__init__()
        for name, value, least in (
            ("every", every, 1),
            ("images", images, 1),
            ("window", window, 2),
        ):
            require(
                value >= least, f"metric.continual.{name}={value}: it must be at least {least}."
            )
        self.every, self.images, self.window = every, images, window
        self.experiences: list[int] = []
        self.shares: list[list[float]] = []

    def step(self, progress: Progress) -> Numbers:
        if progress.step % self.every and progress.step != progress.steps:
            return {}
        now = self._accuracies(progress.experience)
        self.experiences.append(progress.experience)
        self.shares.append(now)
        return {"sampled_accuracy": float(np.mean(now)), "lowest_sampled_accuracy": min(now)}

    def after(self) -> Numbers:
        names = (
            *("minimum_accuracy", "worst_case_accuracy", "windowed_forgetting"),
            *("windowed_plasticity", "stability_gap"),
        )
        if not self.shares:
            return dict.fromkeys(names, Undefined("the method takes no steps"))
        count = max(map(len, self.shares))
        curves = np.array([[*row, *[np.nan] * (count - len(row))] for row in self.shares])
        return dict(
            zip(names, summary(curves, np.array(self.experiences), self.window), strict=True)
        )

    def _accuracies(self, experience: int) -> list[float]:
        learner, stream = parts(self.context)
        tests = [spread(stream.test[task], self.images) for task in range(experience + 1)]
        told = stream.scenario == "task-incremental"
        if not (told or learner.strategy.needs_task_id):
            counts = [count_correct(learner, [test])[0] for test in tests]
        else:
            counts = [count_correct(learner, [t], task)[0] for task, t in enumerate(tests)]
        return [count[told] / len(test) for count, test in zip(counts, tests, strict=True)]


def summary(curves: Matrix, experiences: Matrix, window: int) -> list[float | Undefined]:
    """The five numbers of `ContinualEvaluation`, in its order.

    curves: evaluations × tasks, NaN before a task is there. experiences: in which each evaluation was made.
    """
    tasks = curves.shape[1]
    alone = Undefined("needs two tasks")
    later = [curves[experiences > task, task] for task in range(tasks - 1)]
    lowest = [curve.min() for curve in later if len(curve)]
    minimum = float(np.mean(lowest)) if lowest else alone
    now = float(curves[-1, -1])
    worst = now / tasks + (1 - 1 / tasks) * minimum if isinstance(minimum, float) else now
    falls, rises = zip(*(largest_moves(c[~np.isnan(c)], window) for c in curves.T), strict=True)
    here, there = np.unique(experiences)[1:], np.unique(experiences)[:-1]
    gaps = [
        gap(curves[experiences == index, task], curves[experiences == before, task])
        for index, before in zip(here, there, strict=True)
        for task in range(before + 1)
    ]
    stability = float(np.mean(gaps)) if gaps else alone
    return [minimum, worst, float(np.mean(falls)), float(np.mean(rises)), stability]


def largest_moves(curve: Matrix, window: int) -> tuple[float, float]:
    """The largest fall and the largest rise from one value to a later one, of `window` in a row."""
    fall = rise = 0.0
    for distance in range(1, min(window, len(curve))):
        moves = curve[distance:] - curve[:-distance]
        fall, rise = max(fall, float(-moves.min())), max(rise, float(moves.max()))
    return fall, rise


def gap(inside: Matrix, before: Matrix) -> float:
    """How far the values inside an experience fall below both its last and the last before it."""
    return float(max(0.0, min(before[-1], inside[-1]) - inside.min()))
