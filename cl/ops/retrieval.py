"""Finding the task of an image from the answers themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Evaluate = Callable[[Tensor, Tensor], Tensor]


def refine(first: Tensor, tasks: Tensor, evaluate: Evaluate, rounds: int) -> Tensor:
    """Logits of every image after its choice of task has stopped changing, or after `rounds` evaluations.

    An image of task k gets the logits z_k; if their largest belongs to another task k', then k ← k', and
    again. All images go on together, those that have settled excepted. first: the task to begin with, int64,
    B. tasks: of each class. evaluate: rows (n of the B images) and their tasks (n) to logits, n × classes.
    Source: Sun et al. (2025), MOS.
    """
    rows, chosen = torch.arange(len(first), device=first.device), first
    logits = evaluate(rows, chosen)
    new = logits
    for _ in range(rounds - 1):
        better = tasks[new.argmax(1)]
        moving = better != chosen
        rows, chosen = rows[moving], better[moving]
        if not len(rows):
            break
        new = evaluate(rows, chosen)
        logits = logits.index_copy(0, rows, new)
    return logits
