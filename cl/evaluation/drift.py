"""How far the backbone's features of earlier tasks have moved, whatever the classifier makes of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cl.data import ArrayDataset, batches
from cl.errors import require
from cl.evaluation.metric import Context, Metric, Numbers, Undefined
from cl.learner import Learner
from cl.ops.ridge import ridge
from cl.stream import Stream

NEEDS_TWO = "needs two tasks"


class CKADrift(Metric):
    """One minus linear CKA (Kornblith et al., 2019) between a task's features then and now; mean over tasks.

    CKA = ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖)  in Frobenius norms, of centred features. Then: right after the task was
    learnt. 0: the same up to rotation and scale. images: of each task's test set, spread evenly.
    """

    needs, when = "learner", "after"

    def __init__(self, images: int = 200) -> None:
        super().__init__()
        require(images >= 2, f"metric.cka_drift.images={images}: it must be at least 2.")
        self.images = images
        self.first: list[Tensor] = []

    def after(self) -> Numbers:
        learner, stream = parts(self.context)
        now = [
            features(learner, spread(stream.test[task], self.images))
            for task in range(self.context.experience + 1)
        ]
        drifts = [1 - linear_cka(old, new) for old, new in zip(self.first, now, strict=False)]
        self.first += now[len(self.first) :]
        return {"cka_drift": float(np.mean(drifts)) if drifts else Undefined(NEEDS_TWO)}


class LinearProbe(Metric):
    """Representation forgetting by linear probes (Davari et al., 2022).

    A ridge classifier is fitted to the present features of each task's own training images, and tested on
    its test images. probe_accuracy: mean over the tasks seen. probe_drift: right after the task was learnt,
    minus now, mean over the earlier tasks. The training data of earlier tasks are looked at for this
    measurement only; a task whose training images have no labels is left out.
    images: of each task and each of both sets, spread evenly. strength: λ, of features of unit length.
    """

    needs, when = "learner", "after"

    def __init__(self, images: int = 1000, strength: float = 0.1) -> None:
        super().__init__()
        require(images >= 2, f"metric.linear_probe.images={images}: it must be at least 2.")
        self.images, self.strength = images, strength
        self.first: list[float] = []

    def after(self) -> Numbers:
        learner, stream = parts(self.context)
        tasks = [
            task
            for task in range(self.context.experience + 1)
            if stream.train[task].targets.min() >= 0
        ]
        now = [self._accuracy(learner, stream.train[task], stream.test[task]) for task in tasks]
        drifts = [old - new for old, new in zip(self.first, now, strict=False)]
        self.first += now[len(self.first) :]
        return {
            "probe_accuracy": float(np.mean(now)) if now else Undefined("needs labels"),
            "probe_drift": float(np.mean(drifts)) if drifts else Undefined(NEEDS_TWO),
        }

    def _accuracy(self, learner: Learner, train: ArrayDataset, test: ArrayDataset) -> float:
        train, test = spread(train, self.images), spread(test, self.images)
        classes, labels = np.unique(train.targets, return_inverse=True)
        known, asked = (with_one(F.normalize(features(learner, data))) for data in (train, test))
        wanted = F.one_hot(torch.from_numpy(labels), len(classes)).double()
        weights = ridge(known.T @ known, known.T @ wanted, self.strength)
        answers = classes[(asked @ weights).argmax(1).numpy()]
        return float(np.mean(answers == test.targets))


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of two sets of features of the same images, n × p and n × q; 1 if neither varies."""
    X, Y = (part.double() - part.double().mean(0) for part in (first, second))
    norms = (X.T @ X).norm() * (Y.T @ Y).norm()
    return float((Y.T @ X).square().sum() / norms) if norms else 1.0


def with_one(features: Tensor) -> Tensor:
    """float64, with a column of ones for the bias."""
    return F.pad(features.double(), (0, 1), value=1.0)


def spread(data: ArrayDataset, count: int) -> ArrayDataset:
    """At most `count` rows, always the same: as many of each class as possible, evenly spread."""
    order = np.argsort(data.targets, kind="stable")
    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(np.int64)
    return data.subset(np.sort(order[chosen]))


@torch.inference_mode()
def features(learner: Learner, data: ArrayDataset) -> Tensor:
    """The backbone's features as it is now, float32 len(data) × features, on the CPU."""
    model, size = learner.model, learner.config.evaluation_batch_size
    model.eval()
    found = []
    for batch in batches(data, model.transform, size, learner.fabric.device):
        with learner.fabric.autocast(), model.ranks.sharing():
            found.append(model.encode(batch.images).float().cpu())
    return torch.cat(found)


def parts(context: Context) -> tuple[Learner, Stream]:
    """The learner and the stream, which are there while a run works."""
    assert context.learner is not None
    assert context.stream is not None
    return context.learner, context.stream
