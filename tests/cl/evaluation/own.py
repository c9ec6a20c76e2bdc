"""A metric of one's own, as somebody would write it in a file of hers."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from cl.data import Batch
from cl.evaluation import Context, Metric, Undefined
from cl.evaluation.metric import Numbers


class Counting(Metric):
    """How many images were shown of each task, and how many answers were right; over the whole run."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []
        self.right = 0
        self.register_buffer("total", torch.zeros(1))

    def before(self, context: Context) -> None:
        self.shown: Counter[int] = Counter()
        self.passes.append(context.experience)

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        self.shown[task] += len(batch)
        self.right += int((outputs.argmax(1) == batch.labels).sum())
        self.total += len(batch)

    def after(self) -> Numbers:
        several = len(self.passes) > 1
        return {
            "shown": sum(self.shown.values()),
            "tasks": max(self.shown, default=-1) + 1,
            "right": self.right,
            "total": float(self.total),
            "passes": len(self.passes) if several else Undefined("needs two tasks"),
        }


class Failing(Metric):
    def __init__(self, hook: str = "batch") -> None:
        super().__init__()
        self.hook = hook

    def before(self, context: Context) -> None:
        self._fail("before")

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        self._fail("batch")

    def after(self) -> Numbers:
        self._fail("after")
        return {"a name": 1.0} if self.hook == "name" else {"fine": 1.0}

    def _fail(self, hook: str) -> None:
        if hook == self.hook:
            raise RuntimeError("it broke\nin two")


class NoMetric:
    pass
