"""Which classes are answered rightly, and what the others are taken for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl.data import Batch
from cl.errors import ConfigurationError, require, suggest
from cl.evaluation.metric import Context, Metric, Numbers, Undefined


class ConfusionMatrix(Metric):
    """Per-class accuracy, and how many images of each class were taken for each other one.

    Gives the mean of the classes' accuracies (each class counts the same), the lowest, and the share of wrong
    answers that the most frequent confusion of two classes makes. each: also the accuracy of every class, as
    class_0_accuracy and so on, in order of arrival. `counts` is the matrix, int64 classes × classes: a row is
    a class, a column what it was taken for.
    """

    counts: Tensor

    def __init__(self, each: bool = False) -> None:
        super().__init__()
        self.each = each

    def before(self, context: Context) -> None:
        seen = len(context.class_names)
        self.register_buffer("counts", torch.zeros(seen, seen, dtype=torch.int64))

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        seen = len(self.counts)
        known = (batch.labels >= 0) & (batch.labels < seen)
        pairs = batch.labels[known] * seen + outputs.argmax(1)[known]
        self.counts.view(-1).index_add_(0, pairs, torch.ones_like(pairs))

    def after(self) -> Numbers:
        shown = self.counts.sum(1)
        if not shown.sum():
            return {"mean_class_accuracy": Undefined("no image was answered")}
        accuracy = self.counts.diagonal().double() / shown  # NaN for a class without images
        there = accuracy[shown > 0]
        wrong = self.counts - torch.diag(self.counts.diagonal())
        none = Undefined("no answer is wrong")
        numbers: dict[str, float | Undefined] = {
            "mean_class_accuracy": float(there.mean()),
            "worst_class_accuracy": float(there.min()),
            "largest_confusion": int(wrong.max()) / int(wrong.sum()) if wrong.any() else none,
        }
        if self.each:
            unseen = Undefined("no image of it was answered")
            for label, share in enumerate(accuracy.tolist()):
                numbers[f"class_{label}_accuracy"] = share if shown[label] else unseen
        return numbers


class TopK(Metric):
    """The share of images whose class is among the k highest outputs, over all images shown."""

    needs = "outputs"

    def __init__(self, k: int = 5) -> None:
        super().__init__()
        require(k >= 1, f"metric.top5.k={k}: it must be at least 1.")
        self.k = k

    def before(self, context: Context) -> None:
        self.right, self.shown, self.classes = 0, 0, len(context.class_names)

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        highest = outputs.topk(min(self.k, outputs.shape[1])).indices
        self.right += int((highest == batch.labels[:, None]).any(1).sum())
        self.shown += len(batch)

    def after(self) -> Numbers:
        name = f"top{self.k}_accuracy"
        if not self.shown:
            return {name: Undefined("no image was answered")}
        if self.classes <= self.k:
            return {name: Undefined(f"needs more than {self.k} classes")}
        return {name: self.right / self.shown}


class RecencyBias(Metric):
    """How often images of older classes are taken for one of the newest experience's.

    Of the images of classes that were there before the last experience that brought new ones, the share
    that is answered with one of these new ones.
    """

    def before(self, context: Context) -> None:
        own = sorted({0, *context.seen[: context.experience + 1]})
        self.newest = own[-2] if len(own) > 1 else 0  # the first label of the newest classes
        self.old, self.taken = 0, 0

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        old = batch.labels < self.newest
        self.old += int(old.sum())
        self.taken += int((outputs.argmax(1)[old] >= self.newest).sum())

    def after(self) -> Numbers:
        reason = "needs classes of an earlier experience"
        return {"recency_bias": self.taken / self.old if self.old else Undefined(reason)}


class ForgettingOfClasses(Metric):
    """How much accuracy was lost on some classes: the best after any earlier experience, minus the last.

    classes: their names, or their numbers in order of arrival. name: what the numbers are called after. Only
    images that were shown count; the accuracy is over all of them together.
    """

    tasks, when = "seen", "after"

    def __init__(self, classes: Sequence[str | int], name: str = "named") -> None:
        super().__init__()
        require(bool(len(classes)), "metric.forgetting_of.classes: give names, as in [cat,dog].")
        self.classes, self.name = list(classes), name
        self.history: list[float] = []

    def before(self, context: Context) -> None:
        names = {str(name): label for label, name in enumerate(context.class_names)}
        last = context.experience == context.experiences - 1
        found = [c if isinstance(c, int) else names.get(c, -1) for c in self.classes]
        for name, label in zip(self.classes, found, strict=True):
            if last and not 0 <= label < len(names):
                raise ConfigurationError(
                    f"metric.forgetting_of.classes: there is no class {name}. "
                    f"{suggest(str(name), names)}"
                )
        self.labels, self.right, self.shown = found, 0, 0

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        ours = torch.isin(batch.labels, torch.tensor(self.labels))
        self.right += int((outputs.argmax(1) == batch.labels)[ours].sum())
        self.shown += int(ours.sum())

    def after(self) -> Numbers:
        before = max(self.history, default=None)
        reason = "needs an earlier experience with these classes"
        numbers: dict[str, float | Undefined] = {
            f"{self.name}_accuracy": Undefined("none of these classes was shown"),
            f"{self.name}_forgetting": Undefined(reason),
        }
        if self.shown:
            share = self.right / self.shown
            self.history.append(share)
            numbers[f"{self.name}_accuracy"] = share
            if before is not None:
                numbers[f"{self.name}_forgetting"] = before - share
        return numbers
