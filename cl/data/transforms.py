"""From uint8 images to what a backbone takes, a whole batch at once and on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Transform:
    """Resize to `size` × `size` pixels (bicubic, antialiased), scale to [0, 1] and standardise.

    mean, std: per channel, as the backbone was pretrained with.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 B × H × W × C to float32 B × 3 × size × size."""
        pixels = images.permute(0, 3, 1, 2).float()
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        if pixels.shape[-2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True)
            pixels = pixels.clamp(0, 255)
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return ((pixels / 255 - mean) / std).contiguous()


def crop(images: Tensor, generator: Generator) -> Tensor:
    """Shift each image by its own random offset, up to an eighth of its side, padding with black.

    uint8 B × H × W × C. This is the "random crop with padding 4" of 32-pixel images.
    """
    count, height, width, _ = images.shape
    pad = max(height, width) // 8
    padded = F.pad(images, (0, 0, pad, pad, pad, pad))
    top, left = torch.randint(0, 2 * pad + 1, (2, count), generator=generator).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]]


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability one half. uint8 B × H × W × C."""
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(2), images)


AUGMENTATIONS: dict[str, tuple[Callable[[Tensor, Generator], Tensor], ...]] = {
    "none": (),
    "crop": (crop,),
    "crop_flip": (crop, flip),
}
"""The named augmentations: what is done to the uint8 images of a training batch, in this order."""


def augment(images: Tensor, name: str, generator: Generator) -> Tensor:
    """Apply the augmentation `name` to a batch; `generator` (on the CPU) decides for each image."""
    for step in AUGMENTATIONS[name]:
        images = step(images, generator)
    return images
