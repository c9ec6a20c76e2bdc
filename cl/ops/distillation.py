"""Keeping to the answers of an earlier model."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from cl.ops.tensors import pad_to


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher/τ) ‖ softmax(student/τ)), the mean over images; without a factor of τ².

    student, teacher: B × classes, logits. Hinton et al. (2015).
    """
    log_p = F.log_softmax(student.float() / temperature, dim=1)
    log_q = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def logit_distance(logits: Tensor, stored: Tensor) -> Tensor:
    """The squared difference, mean over all classes and images.

    logits: B × classes. stored: B × at most as many; a class without a stored logit counts as 0, which is
    what a head's new row gives.
    """
    return F.mse_loss(logits.float(), pad_to(stored.float(), logits.shape))
