"""How good the student's features are, on images that neither stage uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nano.cache import autocast, glyphs
from nano.views import resize, tiny_imagenet


def nearest_mean(x: Tensor, labels: Tensor, held: Tensor, held_labels: Tensor) -> float:
    """Accuracy in per cent of the class mean with the largest cosine."""
    means = F.normalize(F.one_hot(labels).float().T @ F.normalize(x, dim=1), dim=1)
    return round(100 * ((held @ means.T).argmax(1) == held_labels).float().mean().item(), 2)


def ridge(x: Tensor, labels: Tensor, held: Tensor, held_labels: Tensor) -> float:
    """Accuracy in per cent of a ridge regression of the labels on standardised features."""
    mean, deviation, onehot = x.mean(0), x.std(0) + 1e-6, F.one_hot(labels).float()
    x, held = (x - mean) / deviation, (held - mean) / deviation
    gram = x.T @ x + 0.1 * len(x) * torch.eye(x.shape[1])
    weight = torch.linalg.solve(gram, x.T @ (onehot - onehot.mean(0)))
    return round(100 * ((held @ weight).argmax(1) == held_labels).float().mean().item(), 2)


PROBES = ("nearest_mean", "ridge", "glyphs")


class Probe:
    """Classifiers on features of Tiny-ImageNet images and glyphs that neither stage uses.

    200 classes with `shots` training and 10 held-out images; 100 glyphs with 10 and 10 drawings.
    """

    def __init__(self, folder: Path, device: torch.device, shots: int = 50) -> None:
        kept, labels, held, held_labels = tiny_imagenet()
        rows = torch.arange(len(labels)).view(int(labels.max()) + 1, -1)[:, :shots].flatten()
        drawn = torch.from_numpy(np.array(glyphs(folder, 100, 20, seed=1)))
        self.images = [resize(kept[rows], 32), resize(held, 32)]
        self.images += [resize(part.flatten(0, 1), 32) for part in (drawn[:, :10], drawn[:, 10:])]
        self.labels = (labels[rows], held_labels)
        self.kinds = torch.arange(100).repeat_interleave(10)
        self.device = device

    @torch.inference_mode()
    def __call__(self, backbone: nn.Module) -> dict[str, float]:
        backbone.eval()
        with autocast(self.device):
            x, held, drawn, held_drawn = (
                torch.cat([backbone(part.to(self.device)).float().cpu() for part in s.split(200)])
                for s in self.images
            )
        labels, held_labels = self.labels
        scores = (
            nearest_mean(x, labels, held, held_labels),
            ridge(x, labels, held, held_labels),
            nearest_mean(drawn, self.kinds, held_drawn, self.kinds),
        )
        return dict(zip(PROBES, scores, strict=True))
