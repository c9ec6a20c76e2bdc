"""Unlabelled Tiny-ImageNet images and strongly augmented views of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SEED = 20  # of everything
HELD_OUT = 10  # images of each Tiny-ImageNet class kept for the probe


def tiny_imagenet() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, held-out images and labels; images are uint8 N×3×64×64."""
    folder = Path(os.environ["CL_DATA_DIR"]) / "tiny_imagenet"
    images = torch.from_numpy(np.load(folder / "train_images.npy")).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.load(folder / "train_labels.npy"))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    order = order[labels[order].argsort(stable=True)].view(int(labels.max()) + 1, -1)
    held, kept = order[:, :HELD_OUT].flatten(), order[:, HELD_OUT:].flatten()
    return images[kept], labels[kept], images[held], labels[held]


def resize(images: Tensor, side: int) -> Tensor:
    """uint8 images, enlarged or reduced (bicubic, antialiased), as floats in [-1, 1]."""
    floats = F.interpolate(
        images.float() / 255, (side, side), mode="bicubic", antialias=True, align_corners=False
    )
    return floats.clamp(0, 1) * 2 - 1


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Strongly augmented views of float images in [0, 1], N×3×S×S, every draw from `generator`.

    Crop of 30 to 100 % of the area, flip, a rotation for a third; brightness, contrast, saturation
    and colour balance; grey for an eighth; an eighth is mixed with another image, an eighth gets a
    rectangle of another.
    """
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    scale, stretch = uniform(0.3, 1).sqrt(), uniform(-0.25, 0.25).exp()
    width, height = (scale * stretch).clamp(max=1), (scale / stretch).clamp(max=1)
    angle = torch.where(uniform(0, 1) < 1 / 3, uniform(-0.35, 0.35), torch.zeros(n))
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    rows = [
        [width * angle.cos() * flip, -height * angle.sin(), (1 - width) * uniform(-1, 1)],
        [width * angle.sin() * flip, height * angle.cos(), (1 - height) * uniform(-1, 1)],
    ]
    affine = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    x = F.grid_sample(images, grid, "bicubic", "reflection", align_corners=False).clamp(0, 1)

    grey = x.mean(1, keepdim=True)
    saturation = torch.where(uniform(0, 1) < 1 / 8, torch.zeros(n), uniform(0.4, 1.6))
    x = grey + (x - grey) * saturation[:, None, None, None]
    x = x * uniform(0.85, 1.15, 3, 1, 1) * uniform(0.6, 1.4, 1, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * uniform(0.6, 1.4, 1, 1, 1)).clamp(0, 1)
    return _mix(x, generator)


def _mix(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blend an eighth of the images with a partner, paste a rectangle of it into another eighth."""
    n, side = len(x), x.shape[-1]
    partner = x[torch.randperm(n, generator=generator)]
    weight = torch.rand(n, 1, 1, 1, generator=generator) / 2
    centre = torch.rand(n, 2, 1, generator=generator)
    half = torch.rand(n, 2, 1, generator=generator) * 0.25 + 0.1
    inside = (torch.linspace(0, 1, side) - centre).abs() < half  # N×2×S: rows, columns
    pasted = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None].float()
    choice = torch.rand(n, 1, 1, 1, generator=generator)
    share = torch.where(choice < 1 / 8, weight, torch.where(choice < 1 / 4, pasted, 0.0))
    return x + share * (partner - x)
