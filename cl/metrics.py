"""What was learnt and what was forgotten: pure functions of the accuracy matrix.

R[i, j] is the accuracy on task j after experience i (T × T, float, shares in [0, 1] or per cent; NaN where
it was not measured). Frameworks disagree on several of these, so each variant has a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cl.errors import require, suggest

Matrix = npt.NDArray[np.float64]


def average_accuracy(R: Matrix, images: Matrix | None = None) -> float:
    """Mean accuracy over all tasks after the last experience (Lopez-Paz and Ranzato, 2017).

    Every task counts the same ("macro"). With `images`, how many test images each task has, every image
    does ("micro", as PILOT and most class-incremental papers report).
    """
    return float(np.average(R[-1], weights=images))


def average_incremental_accuracy(R: Matrix) -> float:
    """Mean over experiences of the mean accuracy over the tasks seen by then (Rebuffi et al., 2017)."""
    return float(np.mean([np.mean(R[i, : i + 1]) for i in range(len(R))]))


def learning_accuracy(R: Matrix) -> float:
    """Mean accuracy on each task right after it was learnt (Riemer et al., 2019)."""
    return float(np.mean(np.diag(R)))


def forgetting(R: Matrix, kind: str = "max_prev") -> float | None:
    """How much accuracy was lost on the tasks before the last; None for a single task.

    kind, a key of `FORGETTING`:
    "max_prev": best earlier accuracy since the task was learnt, minus the last (Chaudhry et al., 2018);
        negative when tasks improved. "first": right after learning minus last (Avalanche).
    "max_all": the best over all rows, the last and those before the task included, so never negative
        (PILOT, mammoth, l2p-pytorch). "max_before": the best over all rows but the last (renate).
    "stepwise": mean of the drops from row to row, each divided by the tasks seen (CODA-Prompt).
    "without_previous": first minus last without the last but one task, divided by T − 1
        (LibContinual; equal to continuum 1.2.7 where the first accuracy is the best).
    """
    require(kind in FORGETTING, f"forgetting kind {kind}: {suggest(kind, FORGETTING)}")
    return None if len(R) < 2 else float(FORGETTING[kind](R))


def backward_transfer(R: Matrix, kind: str = "last") -> float | None:
    """How learning later tasks changed the accuracy on earlier ones; None for a single task.

    kind: "last": mean of R[T−1, j] − R[j, j] (Lopez-Paz and Ranzato, 2017). "all_pairs": mean of
    R[i, j] − R[j, j] over all i > j (Díaz-Rodríguez et al., 2018; continuum). "without_newest_pair":
    the same sum without the pairs (i, i − 1), still divided by T (T − 1) / 2 (LibContinual).
    """
    require(kind in BACKWARD, f"backward transfer kind {kind}: {suggest(kind, BACKWARD)}")
    return None if len(R) < 2 else float(BACKWARD[kind](R))


def forward_transfer(R: Matrix, baseline: Matrix | None, kind: str = "lopez_paz") -> float | None:
    """How much the tasks before helped a task that was not learnt yet.

    baseline: b[j], the accuracy of the untrained model on task j. kind: "lopez_paz": mean of
    R[j−1, j] − b[j]; "no_baseline": mean of R[j−1, j] (continuum). None when it is undefined: where a
    task to come cannot be predicted, as with a single head that grows with the classes, R is NaN there.
    """
    require(kind in ("lopez_paz", "no_baseline"), f"forward transfer kind {kind} is not known.")
    if len(R) < 2:
        return None
    ahead = np.array([R[j - 1, j] for j in range(1, len(R))])
    if kind == "lopez_paz":
        ahead = ahead - (np.full(len(ahead), np.nan) if baseline is None else baseline[1:])
    return None if np.isnan(ahead).any() else float(np.mean(ahead))


def _max_prev(R: Matrix) -> float:
    T = len(R)
    return float(np.mean([R[j : T - 1, j].max() - R[-1, j] for j in range(T - 1)]))


def _max_all(R: Matrix) -> float:
    return float(np.mean([np.nanmax(R[:, j]) - R[-1, j] for j in range(len(R) - 1)]))


def _max_before(R: Matrix) -> float:
    return float(np.mean([np.nanmax(R[:-1, j]) - R[-1, j] for j in range(len(R) - 1)]))


def _stepwise(R: Matrix) -> float:
    T = len(R)
    drops = [(R[t - 1, i] - R[t, i]) / t for t in range(1, T) for i in range(t)]
    return float(np.sum(drops) / (T - 1))


def _without_previous(R: Matrix) -> float:
    T = len(R)
    return float(np.sum([R[j, j] - R[-1, j] for j in range(T - 2)]) / (T - 1))


FORGETTING: dict[str, Callable[[Matrix], float]] = {
    "max_prev": _max_prev,
    "first": lambda R: -_last(R),
    "max_all": _max_all,
    "max_before": _max_before,
    "stepwise": _stepwise,
    "without_previous": _without_previous,
}


def _last(R: Matrix) -> float:
    return float(np.mean([R[-1, j] - R[j, j] for j in range(len(R) - 1)]))


def _all_pairs(R: Matrix) -> float:
    return float(np.mean([R[i, j] - R[j, j] for i in range(len(R)) for j in range(i)]))


def _without_newest_pair(R: Matrix) -> float:
    T = len(R)
    return float(sum(R[i, j] - R[j, j] for i in range(T) for j in range(i - 1)) / (T * (T - 1) / 2))


BACKWARD: dict[str, Callable[[Matrix], float]] = {
    "last": _last,
    "all_pairs": _all_pairs,
    "without_newest_pair": _without_newest_pair,
}


def summarise(R: Matrix, baseline: Matrix | None = None, sequential: bool = True) -> dict[str, Any]:
    """The metrics of a summary, with the definitions of the literature. baseline: of `forward_transfer`.

    sequential: whether each row's model goes on from the one before; else there is no forgetting to speak of.
    """
    return {
        "average_accuracy": average_accuracy(R),
        "average_incremental_accuracy": average_incremental_accuracy(R),
        "forgetting": forgetting(R) if sequential else None,
        "backward_transfer": backward_transfer(R) if sequential else None,
        "forward_transfer": forward_transfer(R, baseline),
        "learning_accuracy": learning_accuracy(R),
    }
