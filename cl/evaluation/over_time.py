"""What becomes of answers from one experience to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cl.data import Batch
from cl.errors import require
from cl.evaluation.metric import Context, Metric, Numbers, Undefined
from cl.matrix import AccuracyMatrix


class NegativeFlips(Metric):
    """Negative-flip rate (Yan et al., 2021): right before the last experience, and wrong after it.

    The share of the images of earlier tasks; positive flips, wrong before and right now, are given too.
    """

    tasks, when = "seen", "after"

    def __init__(self) -> None:
        super().__init__()
        self.right: dict[int, Tensor] = {}

    def before(self, context: Context) -> None:
        self.earlier, self.right = self.right, {}

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        right = outputs.argmax(1) == batch.labels
        known = self.right.get(task, torch.zeros(0, dtype=torch.bool))
        self.right[task] = torch.cat([known, right])

    def after(self) -> Numbers:
        both = sorted(self.earlier.keys() & self.right.keys())
        if not both:
            reason = Undefined("needs two tasks")
            return {"negative_flip_rate": reason, "positive_flip_rate": reason}
        old, new = (torch.cat([part[task] for task in both]) for part in (self.earlier, self.right))
        return {
            "negative_flip_rate": float((old & ~new).double().mean()),
            "positive_flip_rate": float((~old & new).double().mean()),
        }


class OnlineAccuracy(Metric):
    """Online (prequential) accuracy (Cai et al., 2021): images are answered before they are trained on.

    Over all images so far, each the first time that it comes, without augmentation; and over those of this
    experience alone.
    """

    when = "during"

    def __init__(self) -> None:
        super().__init__()
        self.right, self.shown = 0, 0

    def before(self, context: Context) -> None:
        self.start = self.right, self.shown

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        labelled = batch.labels >= 0
        self.right += int((outputs.argmax(1) == batch.labels)[labelled].sum())
        self.shown += int(labelled.sum())

    def after(self) -> Numbers:
        right, shown = self.right - self.start[0], self.shown - self.start[1]
        none = Undefined(
            "no image was answered before it was trained on: the method takes no steps, "
            "or trains on other data than the experience's"
        )
        return {
            "online_accuracy": self.right / self.shown if self.shown else none,
            "online_accuracy_of_experience": right / shown if shown else none,
        }


class ZeroShot(Metric):
    """Accuracy on tasks that are still to come, and what MTIL makes of it (Zheng et al., 2023).

    With R[i, j], the accuracy on task j after experience i, of T:
    zero_shot_accuracy: mean of the R[i, j] with j > i so far. mtil_transfer: mean over tasks j > 0 of the
    mean of R[i, j] over i < j. mtil_average: mean of all R[i, j]. mtil_last: mean of R[T−1, j].

    They are defined where the model has outputs for the classes to come, as in a domain-incremental stream.
    In every pass all test images of the stream are answered.
    """

    tasks, when = "all", "after"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[float]] = []

    def before(self, context: Context) -> None:
        self.right, self.shown, self.lacking = np.zeros((3, context.experiences), dtype=np.int64)

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        self.right[task] += int((outputs.argmax(1) == batch.labels).sum())
        self.shown[task] += len(batch)
        self.lacking[task] += int((batch.labels >= outputs.shape[1]).sum())

    def after(self) -> Numbers:
        known = (self.shown > 0) & (self.lacking == 0)
        shares = np.where(known, self.right / np.maximum(self.shown, 1), np.nan)
        self.rows.append(shares.tolist())
        R, T = np.array(self.rows), len(self.right)
        ahead = R[np.triu_indices(len(R), 1, T)]
        numbers = {"zero_shot_accuracy": _mean(ahead, "needs two tasks")}
        if len(R) < T:
            waiting = Undefined("needs the whole stream")
            return {
                **numbers,
                "mtil_transfer": waiting,
                "mtil_average": waiting,
                "mtil_last": waiting,
            }
        transfer = [np.mean(R[:j, j]) for j in range(1, T)]
        return {
            **numbers,
            "mtil_transfer": _mean(np.array(transfer), "needs two tasks"),
            "mtil_average": _mean(R.flatten(), "needs a task"),
            "mtil_last": _mean(R[-1], "needs a task"),
        }


class Intransigence(Metric):
    """How much less is learnt than by joint training (Chaudhry et al., 2018): mean of R*[k, k] − R[k, k].

    joint: the folder of a run of strategy=joint on the same stream; R* is its matrix. Below zero the joint
    run did worse.
    """

    tasks, when = "seen", "after"

    def __init__(self, joint: str) -> None:
        super().__init__()
        matrix = AccuracyMatrix.read(Path(joint) / "accuracy_matrix.csv")
        self.joint, self.reference = (
            joint,
            [
                (cell.images, cell.correct)
                for row in matrix.by_experience
                for cell in row
                if cell.task == cell.experience
            ],
        )
        self.gaps: list[float] = []

    def before(self, context: Context) -> None:
        require(
            context.experiences == len(self.reference),
            f"metric.intransigence.joint={self.joint}: that run has {len(self.reference)} experiences, "
            f"this one {context.experiences}.",
        )
        self.now, self.right, self.shown = context.experience, 0, 0

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        if task == self.now:
            self.right += int((outputs.argmax(1) == batch.labels).sum())
            self.shown += len(batch)

    def after(self) -> Numbers:
        images, correct = self.reference[self.now]
        require(
            images == self.shown,
            f"metric.intransigence.joint={self.joint}: task {self.now} has {images} test images there, and "
            f"{self.shown} here. It must be a run on the same stream.",
        )
        self.gaps.append(correct / images - self.right / self.shown)
        return {"intransigence": float(np.mean(self.gaps))}


def _mean(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], empty: str
) -> float | Undefined:
    if not len(values):
        return Undefined(empty)
    lacking = "needs outputs for the classes to come, as in a domain-incremental stream"
    return Undefined(lacking) if np.isnan(values).any() else float(np.mean(values))
