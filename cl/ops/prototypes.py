"""Class prototypes in the feature subspaces of several tasks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def synthesise(prototypes: Tensor, tasks: Tensor, temperature: float = 1.0) -> Tensor:
    """Fill in the prototypes of old classes in the subspaces of later tasks, which never saw their images.

    prototypes: classes × subspaces × features; row c is measured in subspaces k ≤ tasks[c]. tasks: classes.
    For a class c of task i and k > i, with j over the classes that were measured in k:
    W[c, k] = Σ_j s_cj W[j, k],  s_cj = softmax_j (cos(W[c, i], W[j, i]) / temperature).
    Source: Zhou et al. (2024), EASE, with temperature 1.
    """
    filled = prototypes.clone()
    for k in range(1, prototypes.shape[1]):
        measured = tasks >= k
        for i in range(k):
            old = tasks == i
            similarity = cosines(prototypes[old, i], prototypes[measured, i])
            filled[old, k] = (similarity / temperature).softmax(1) @ prototypes[measured, k]
    return filled


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarities of all rows: … × n × d and … × m × d to … × n × m."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).mT


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean of each class's rows: … × n × d and n to … × classes × d, float32; zero without rows."""
    chosen = F.one_hot(labels, classes).double()
    counts = chosen.sum(0).clamp_min(1)
    return ((chosen.T @ features.double()) / counts[:, None]).float()


def own_subspace_weights(tasks: Tensor, subspaces: int, others: float) -> Tensor:
    """Classes × subspaces: 1 in the subspace of a class's own task, `others` in the rest."""
    weights = torch.full((len(tasks), subspaces), others, device=tasks.device)
    return weights.scatter(1, tasks[:, None], 1.0)
