"""What the fifteen common corruptions do to pixels (Hendrycks and Dietterich, 2019), a batch at a time.

Every function takes pixels in [0, 1] (float64 B × H × W × C), a generator of random numbers for each image,
and a strength, and gives pixels of the same shape. `cl.data.corruptions` says how strong each is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Pixels = npt.NDArray[np.float64]
Generators = Sequence[np.random.Generator]
Distortion = Callable[[Pixels, Generators, Any], Pixels]


def gaussian_noise(x: Pixels, generators: Generators, deviation: float) -> Pixels:
    """Normal noise of this standard deviation on every value."""
    noise = np.stack([g.standard_normal(x.shape[1:]) for g in generators])
    return np.asarray(x + deviation * noise)


def shot_noise(x: Pixels, generators: Generators, photons: float) -> Pixels:
    """Poisson noise: every value is counted in `photons` that arrive at random."""
    drawn = [g.poisson(each * photons) for each, g in zip(x, generators, strict=True)]
    return np.stack(drawn) / photons


def impulse_noise(x: Pixels, generators: Generators, share: float) -> Pixels:
    """A share of the values becomes black or white, with equal chances."""
    chance = np.stack([g.random(x.shape[1:]) for g in generators])
    return np.where(chance < share, (chance < share / 2).astype(float), x)


def defocus_blur(x: Pixels, generators: Generators, strength: tuple[float, float]) -> Pixels:
    """Out of focus: every point becomes a `disk` of (radius, softening)."""
    kernel = disk(*strength)
    return np.asarray(ndimage.convolve(x, kernel[None, :, :, None], mode="mirror"))


def disk(radius: float, blur: float) -> Pixels:
    """A filled circle, its edge softened by a Gaussian of 3 × 3 (5 × 5 from radius 9 on); its sum is 1."""
    half = max(8, int(radius)) + 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    circle = (x**2 + y**2 <= radius**2).astype(float)
    reach = np.arange(3) - 1 if radius <= 8 else np.arange(5) - 2
    soft = np.exp(-(reach**2) / (2 * blur**2))
    kernel = ndimage.convolve(circle, np.outer(soft, soft) / soft.sum() ** 2, mode="constant")
    side = np.flatnonzero(kernel.any(axis=0))
    kernel = kernel[side[0] : side[-1] + 1, side[0] : side[-1] + 1]
    return np.asarray(kernel / kernel.sum())


def glass_blur(x: Pixels, generators: Generators, strength: tuple[float, int, int]) -> Pixels:
    """Frosted glass: pixels change places, between two blurs. strength: sigma, how far, how many rounds."""
    sigma, reach, rounds = strength
    height, width = x.shape[1:3]
    x = np.round(smooth(x, sigma) * 255)
    moves = np.stack([g.integers(-reach, reach, (rounds, height, width, 2)) for g in generators])
    batch = np.arange(len(x))
    for turn in range(rounds):
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                other_h, other_w = h + moves[:, turn, h, w, 1], w + moves[:, turn, h, w, 0]
                here = x[:, h, w].copy()
                x[:, h, w] = x[batch, other_h, other_w]
                x[batch, other_h, other_w] = here
    return smooth(x / 255, sigma)


def smooth(x: Pixels, sigma: float) -> Pixels:
    """A Gaussian blur; the border is continued."""
    return np.asarray(ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest"))


def motion_blur(x: Pixels, generators: Generators, strength: tuple[int, float]) -> Pixels:
    """Smeared along an angle of −45 … 45 degrees. strength: radius, sigma (see `smear`)."""
    angles = np.array([g.uniform(-45, 45) for g in generators])
    return smear(x, *strength, angles)


def smear(x: Pixels, radius: int, sigma: float, degrees: Pixels) -> Pixels:
    """Blur each image along its own direction: half a Gaussian over 2 · radius + 1 pixels."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights[weights < 1e-4] = 0
    weights /= weights.sum()
    height, width = x.shape[1:3]
    batch = np.arange(len(x))[:, None, None]
    down, right = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    out = np.zeros_like(x)
    for step in steps[weights > 0]:
        rows = np.arange(height) + np.ceil(step * down - 0.5)[:, None]
        columns = np.arange(width) + np.ceil(step * right - 0.5)[:, None]
        rows = np.clip(rows, 0, height - 1).astype(int)[:, :, None]
        columns = np.clip(columns, 0, width - 1).astype(int)[:, None, :]
        out += weights[step] * x[batch, rows, columns]
    return out


def zoom_blur(x: Pixels, generators: Generators, factors: Sequence[float]) -> Pixels:
    """The mean of the image and its enlargements by these factors."""
    return np.asarray((x + sum(enlarge(x, factor) for factor in factors)) / (len(factors) + 1))


def enlarge(x: Pixels, factor: float) -> Pixels:
    """The middle of each image, enlarged to its old size, bilinear. B × H × W × C."""
    centre = (np.array(x.shape[1:3]) - 1) / 2
    offset = centre - centre / factor
    shrink = np.array([1, 1 / factor, 1 / factor, 1])
    moved = ndimage.affine_transform(x, shrink, [0, *offset, 0], order=1, mode="nearest")
    return np.asarray(moved)


def snow(x: Pixels, generators: Generators, strength: tuple[Any, ...]) -> Pixels:
    """Falling flakes over a whitened image. strength: mean and deviation of the noise that makes the flakes,
    its enlargement, the threshold of a flake, radius and sigma of its fall, and how much of the image stays.
    """
    mean, deviation, zoom, threshold, radius, sigma, keep = strength
    flakes = np.stack([g.normal(mean, deviation, x.shape[1:3]) for g in generators])[..., None]
    flakes = enlarge(flakes, zoom)
    flakes[flakes < threshold] = 0
    angles = np.array([g.uniform(-135, -45) for g in generators])
    flakes = smear(np.clip(flakes, 0, 1), radius, sigma, angles)
    pale = grey(x) * 1.5 + 0.5
    settled = flakes + np.rot90(flakes, 2, axes=(1, 2))
    return np.asarray(keep * x + (1 - keep) * np.maximum(x, pale) + settled)


def grey(x: Pixels) -> Pixels:
    """Luminance, B × H × W × 1."""
    if x.shape[3] == 1:
        return x
    return np.asarray(x @ np.array([0.299, 0.587, 0.114]))[..., None]


def frost(x: Pixels, generators: Generators, strength: tuple[float, float]) -> Pixels:
    """Ice over the image. strength: the weights of the image and of the ice."""
    keep, amount = strength
    height, width = x.shape[1:3]
    clouds = plasma(generators, max(height, width), 2.2)[:, :height, :width]
    grain = plasma(generators, max(height, width), 1.4)[:, :height, :width]
    needles = (
        1 - np.abs(2 * grain - 1)
    ) ** 4  # ridges: bright thin lines where the grain is one half
    ice = np.clip(0.25 + 0.6 * clouds * (0.4 + needles), 0, 1)[..., None]
    blue = np.array([0.82, 0.92, 1.0]) if x.shape[3] == 3 else np.ones(1)
    return np.asarray(keep * x + amount * ice * blue)


def fog(x: Pixels, generators: Generators, strength: tuple[float, float]) -> Pixels:
    """Clouds over the image, as bright as before. strength: their weight, and their decay (see `plasma`)."""
    amount, decay = strength
    height, width = x.shape[1:3]
    cloud = plasma(generators, max(height, width), decay)[:, :height, :width, None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return np.asarray((x + amount * cloud) * brightest / (brightest + amount))


def plasma(generators: Generators, side: int, decay: float) -> Pixels:
    """Clouds in [0, 1] by the diamond-square method, B × n × n with n the power of two from `side` up.

    decay: by how much smaller the random part becomes from one scale to the next finer one.
    """
    size = 1 << max(1, (side - 1).bit_length())
    field = np.zeros((len(generators), size, size))
    step, wobble = size, 100.0

    def around(total: Pixels) -> Pixels:
        noise = np.stack([g.uniform(-wobble, wobble, total.shape[1:]) for g in generators])
        return np.asarray(total / 4 + wobble * noise)

    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        square = corners + np.roll(corners, -1, 1)
        field[:, half::step, half::step] = around(square + np.roll(square, -1, 2))
        centres = field[:, half::step, half::step]
        field[:, ::step, half::step] = around(
            centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 2)
        )
        field[:, half::step, ::step] = around(
            centres + np.roll(centres, 1, 2) + corners + np.roll(corners, -1, 1)
        )
        step, wobble = half, wobble / decay
    field -= field.min(axis=(1, 2), keepdims=True)
    return np.asarray(field / np.maximum(field.max(axis=(1, 2), keepdims=True), 1e-12))


def brightness(x: Pixels, generators: Generators, amount: float) -> Pixels:
    """More of the value V of hue, saturation and value."""
    value = x.max(axis=3, keepdims=True)
    brighter = np.clip(value + amount, 0, 1)
    return np.asarray(np.where(value > 0, x * brighter / np.maximum(value, 1e-12), brighter))


def contrast(x: Pixels, generators: Generators, factor: float) -> Pixels:
    """The distance to the mean of each channel, times a factor."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return np.asarray((x - mean) * factor + mean)


def elastic_transform(x: Pixels, generators: Generators, strength: Sequence[float]) -> Pixels:
    """Stretched by an affine map and bent by a smooth random displacement.

    strength: size and smoothness of the displacement and size of the stretch, as shares of the side.
    """
    amount, sigma, shift = (share * min(x.shape[1:3]) for share in strength)
    return np.stack(
        [_bent(each, g, amount, sigma, shift) for each, g in zip(x, generators, strict=True)]
    )


def _bent(
    image: Pixels, generator: np.random.Generator, amount: float, sigma: float, shift: float
) -> Pixels:
    """One image: three points of a square moved by up to `shift`, then a smooth random displacement."""
    height, width = image.shape[:2]
    centre, square = np.array([height, width]) // 2, min(height, width) // 3
    corners = centre + square * np.array([[1, 1], [-1, 1], [-1, -1]])
    moved = corners + generator.uniform(-shift, shift, (3, 2))
    # The affine map that takes the moved points back to where they were.
    back = np.linalg.lstsq(np.c_[moved, np.ones(3)], corners.astype(float), rcond=None)[0]
    waves = generator.uniform(-1, 1, (2, height, width))
    waves = amount * ndimage.gaussian_filter(waves, (0, sigma, sigma), mode="reflect", truncate=3)
    places = np.stack(np.mgrid[:height, :width] + waves, axis=-1)
    source = places @ back[:2] + back[2]
    coordinates = np.moveaxis(source, -1, 0)
    channels = [
        ndimage.map_coordinates(image[..., channel], coordinates, order=1, mode="mirror")
        for channel in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)


def pixelate(x: Pixels, generators: Generators, share: float) -> Pixels:
    """Shrunk to a share of the side and enlarged again, both with a box filter."""
    for axis in (1, 2):
        old = x.shape[axis]
        new = max(1, int(old * share))
        x = np.moveaxis(np.tensordot(x, box(old, new), axes=(axis, 1)), -1, axis)
        x = np.moveaxis(np.tensordot(x, box(new, old), axes=(axis, 1)), -1, axis)
    return x


def box(old: int, new: int) -> Pixels:
    """new × old: row i is the mean of the old pixels whose centres the i-th new one covers, as Pillow."""
    scale = old / new
    centres = (np.arange(new)[:, None] + 0.5) * scale
    distance = (np.arange(old) + 0.5 - centres) / max(1.0, scale)
    inside = ((distance > -0.5) & (distance <= 0.5)).astype(float)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))


def jpeg_compression(x: Pixels, generators: Generators, quality: int) -> Pixels:
    """Stored as a JPEG of this quality."""
    from PIL import Image

    decoded = []
    for image in np.round(x * 255).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).save(
            file, "JPEG", quality=quality
        )
        decoded.append(np.asarray(Image.open(file)).reshape(image.shape))
    return np.stack(decoded) / 255
