"""From uint8 images to what a backbone takes, a whole batch at once and on the device."""

from __future__ import annotations

import math
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
        planes = images.permute(0, 3, 1, 2)
        if planes.shape[1] == 1:
            planes = planes.expand(-1, 3, -1, -1)
        # Contiguous at once, and then in place: on a CPU that is several times faster.
        pixels = planes.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if pixels.shape[-2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True)
            pixels.clamp_(0, 255)
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return pixels.div_(255).sub_(mean).div_(std)


def crop(images: Tensor, generator: Generator) -> Tensor:
    """Shift each image by its own random offset, up to an eighth of its side, padding with black.

    uint8 B × H × W × C. This is the "random crop with padding 4" of 32-pixel images.
    """
    count, height, width, _ = images.shape
    pad = max(height, width) // 8
    padded = F.pad(images, (0, 0, pad, pad, pad, pad))
    top, left = torch.randint(0, 2 * pad + 1, (2, count), generator=generator).to(images.device)
    windows = padded.unfold(1, height, 1).unfold(
        2, width, 1
    )  # a view: B × tops × lefts × C × H × W
    return windows[torch.arange(count, device=images.device), top, left].permute(0, 2, 3, 1)


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability one half. uint8 B × H × W × C."""
    mirrored = (
        (torch.rand(len(images), generator=generator) < 0.5).nonzero()[:, 0].to(images.device)
    )
    return images.index_copy(0, mirrored, images[mirrored].flip(2))


def resized_crop(
    images: Tensor,
    generator: Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Cut a random box out of each image and enlarge it to the image's size, bilinear.

    uint8 B × H × W × C. scale: the smallest and the largest area of the box, as a share of the image's.
    ratio: the smallest and the largest width of the box as a multiple of its height.
    """
    count, height, width, _ = images.shape
    boxes = draw_boxes(count, height, width, generator, scale, ratio).to(images.device)
    rows = _places(height, boxes[:, 0], boxes[:, 2])
    columns = _places(width, boxes[:, 1], boxes[:, 3])
    shape = (count, height, width)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=3)
    pixels = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, align_corners=True)
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1)


def draw_boxes(
    count: int,
    height: int,
    width: int,
    generator: Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Tensor:
    """Boxes in images of this size: top, left, height and width in pixels, int64 count × 4.

    Area and logarithm of the ratio are drawn evenly, ten times; the first box that fits is taken. If none
    does, it is the largest one in the middle whose ratio is allowed.
    """
    shares, ratios, tops, lefts = torch.rand(4, 10, count, generator=generator, dtype=torch.float64)
    areas = (scale[0] + (scale[1] - scale[0]) * shares) * height * width
    shapes = torch.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * ratios)
    heights, widths = (areas / shapes).sqrt().round(), (areas * shapes).sqrt().round()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = fits.to(torch.int8).argmax(0, keepdim=True)
    high, wide = heights.gather(0, first)[0], widths.gather(0, first)[0]
    top = (tops.gather(0, first)[0] * (height - high + 1)).floor()
    left = (lefts.gather(0, first)[0] * (width - wide + 1)).floor()
    most_high = min(height, round(width / ratio[0]))
    most_wide = min(width, round(height * ratio[1]))
    middle = [(height - most_high) // 2, (width - most_wide) // 2, most_high, most_wide]
    boxes = torch.stack([top, left, high, wide], dim=1).long()
    return torch.where(fits.any(0)[:, None], boxes, torch.tensor(middle))


def _places(side: int, first: Tensor, length: Tensor) -> Tensor:
    """Where the pixels of an enlarged part are in the whole, B × side, from −1 to 1."""
    inside = (torch.arange(side, device=first.device) + 0.5) * length[:, None] / side - 0.5
    places = first[:, None] + torch.minimum(inside.clamp(min=0), length[:, None] - 1.0)
    return 2 * places / max(1, side - 1) - 1


def colour_jitter(
    images: Tensor,
    generator: Generator,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image, in an order of its own.

    uint8 B × H × W × C. The first three are factors from 1 − x to 1 + x; the hue is moved by −x … x of
    the circle. Grey images have no saturation and no hue.
    """
    amounts, order = draw_jitter(len(images), generator, brightness, contrast, saturation, hue)
    amounts = amounts.to(images.device)
    pixels = images.float() / 255
    for turn in order.T:
        for number, change in enumerate(COLOUR_CHANGES):
            which = (turn == number).nonzero()[:, 0].to(images.device)
            amount = amounts[which, number].view(-1, 1, 1, 1)
            pixels[which] = change(pixels[which], amount)
    return (255 * pixels).round().to(torch.uint8)


def draw_jitter(
    count: int,
    generator: Generator,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> tuple[Tensor, Tensor]:
    """The amounts of `COLOUR_CHANGES` for each image, float32 count × 4, and their order, int64 count × 4."""
    middle = torch.tensor([1.0, 1.0, 1.0, 0.0])
    reach = torch.tensor([brightness, contrast, saturation, hue])
    amounts = middle + reach * (2 * torch.rand(count, 4, generator=generator) - 1)
    amounts[:, :3].clamp_(min=0)
    return amounts, torch.rand(count, 4, generator=generator).argsort(1)


def _brighter(pixels: Tensor, factor: Tensor) -> Tensor:
    return (pixels * factor).clamp(0, 1)


def _more_contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    mean = _luminance(pixels).mean((1, 2, 3), keepdim=True)
    return (mean + factor * (pixels - mean)).clamp(0, 1)


def _more_saturated(pixels: Tensor, factor: Tensor) -> Tensor:
    grey = _luminance(pixels)
    return (grey + factor * (pixels - grey)).clamp(0, 1)


def _other_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of the cone of hue, saturation and value."""
    if pixels.shape[3] == 1:
        return pixels
    red, green, blue = pixels.unbind(3)
    value, smallest = pixels.amax(3), pixels.amin(3)
    chroma = value - smallest
    scale = torch.where(chroma > 0, chroma, 1.0)
    sixth = torch.where(
        value == red,
        (green - blue) / scale,
        torch.where(value == green, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    turned = sixth[..., None] + 6 * turn + torch.tensor([5.0, 3.0, 1.0], device=pixels.device)
    k = turned.remainder(6)
    return value[..., None] - chroma[..., None] * torch.minimum(k, 4 - k).clamp(0, 1)


def _luminance(pixels: Tensor) -> Tensor:
    """B × H × W × 1, with the weights of torchvision."""
    if pixels.shape[3] == 1:
        return pixels
    return pixels @ torch.tensor([[0.2989], [0.587], [0.114]], device=pixels.device)


COLOUR_CHANGES = (_brighter, _more_contrast, _more_saturated, _other_hue)

AUGMENTATIONS: dict[str, tuple[Callable[[Tensor, Generator], Tensor], ...]] = {
    "none": (),
    "crop": (crop,),
    "crop_flip": (crop, flip),
    "crop_flip_jitter": (crop, flip, colour_jitter),
    "resized_crop": (resized_crop,),
    "resized_crop_flip": (resized_crop, flip),
    "resized_crop_flip_jitter": (resized_crop, flip, colour_jitter),
}
"""The named augmentations: what is done to the uint8 images of a training batch, in this order."""


def augment(images: Tensor, name: str, generator: Generator) -> Tensor:
    """Apply the augmentation `name` to a batch; `generator` (on the CPU) decides for each image."""
    for step in AUGMENTATIONS[name]:
        images = step(images, generator)
    return images
