"""Keeping to the answers of an earlier model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher/τ) ‖ softmax(student/τ)), the mean over images; without a factor of τ².

    student, teacher: B × classes, logits. Hinton et al. (2015).
    """
    log_p = F.log_softmax(student.float() / temperature, dim=1)
    log_q = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def logit_distance(logits: Tensor, stored: Tensor, known: Tensor) -> Tensor:
    """The squared difference, mean over all classes, then over images.

    logits: B × classes. stored: B × at most as many, of which the first `known` (int64 B) are real. A class
    that was not known yet counts as a logit of 0, which is what a head's new row gives.
    """
    real = torch.arange(stored.shape[1], device=stored.device) < known[:, None]
    target = torch.zeros_like(logits, dtype=torch.float32)
    target[:, : stored.shape[1]] = torch.where(real, stored.float(), 0.0)
    return F.mse_loss(logits.float(), target)
