"""How far the confidence of the answers is from how often they are right."""

from __future__ import annotations

import torch
from torch import Tensor

from cl.data import Batch
from cl.errors import require
from cl.evaluation.metric import Context, Metric, Numbers, Undefined


class CalibrationError(Metric):
    """Expected calibration error (Naeini et al., 2015; Guo et al., 2017), over all images shown.

    Σ_b n_b / n · |right_b − confidence_b|  over `bins` of equal width, (0, 1/bins] …: right_b is the share of
    right answers in bin b, and confidence_b the mean softmax of the class answered.
    """

    sums: Tensor

    def __init__(self, bins: int = 15) -> None:
        super().__init__()
        require(bins >= 1, f"metric.ece.bins={bins}: it must be at least 1.")
        self.bins = bins

    def before(self, context: Context) -> None:
        self.register_buffer("sums", torch.zeros(3, self.bins, dtype=torch.float64))

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        confidence, answers = outputs.double().softmax(1).max(1)
        index = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1
        right = (answers == batch.labels).double()
        self.sums.index_add_(1, index, torch.stack([torch.ones_like(right), right, confidence]))

    def after(self) -> Numbers:
        count, right, confidence = self.sums.unbind()
        if not count.sum():
            return {"calibration_error": Undefined("no image was answered")}
        return {"calibration_error": float((right - confidence).abs().sum() / count.sum())}
