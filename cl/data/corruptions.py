"""The fifteen common corruptions at five severities (Hendrycks and Dietterich, 2019), on batches of images.

The authors give strengths for images of 32 pixels a side (CIFAR-10-C), of 64 (Tiny-ImageNet-C) and of 224
(ImageNet-C); others get those of the nearest size by ratio. Every random number comes from a generator of
(seed, corruption, severity, row), so an image is corrupted the same way alone, in any batch, and on any
machine. Where this differs from the authors' programs: the frost is computed (theirs are photographs), glass
blur exchanges two pixels (theirs writes the one over the other), an enlargement is exact about the centre
(theirs begins at a whole pixel), the elastic transform samples once instead of twice, bytes are rounded and
not cut off, and ImageNet-C's last step of storing every image as a JPEG of quality 85 is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cl.data import distortions
from cl.data.arrays import Array
from cl.data.distortions import Distortion
from cl.errors import require, suggest

SEVERITIES = 5
SIZES = (32, 64, 224)
"""The sides in pixels that the authors give strengths for."""


def corrupt(images: Array, rows: Array, name: str, severity: int, seed: int = 0) -> Array:
    """Corrupt uint8 B × H × W × C; `name` is a key of `CORRUPTIONS`, severity 1 … 5."""
    require(name in CORRUPTIONS, f"corruption {name}: {suggest(name, CORRUPTIONS)}")
    require(1 <= severity <= SEVERITIES, f"severity={severity}: it must be 1 … {SEVERITIES}.")
    function, *strengths = CORRUPTIONS[name]
    strength = strengths[nearest_size(max(images.shape[1:3]))][severity - 1]
    number = list(CORRUPTIONS).index(name)
    generators = [
        np.random.Generator(np.random.PCG64([seed, number, severity, int(row)])) for row in rows
    ]
    pixels = function(images / 255.0, generators, strength)
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def nearest_size(side: int) -> int:
    """Which of `SIZES` is nearest to `side`, by ratio."""
    return min(range(len(SIZES)), key=lambda i: abs(math.log(side / SIZES[i])))


def _zooms(ends: Sequence[float], steps: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    # As numpy steps: by the error of floating point, the first ends are among the factors.
    pairs = zip(ends, steps, strict=True)
    return tuple(tuple(np.arange(1, end, step).tolist()) for end, step in pairs)


_ZOOMS = _zooms((1.06, 1.11, 1.16, 1.21, 1.26), (0.01,) * 5)
_W = 244 / 224  # the authors' shares are of 244 pixels, for images of 224

Strengths = Sequence[Any]
CORRUPTIONS: dict[str, tuple[Distortion, Strengths, Strengths, Strengths]] = {
    "gaussian_noise": (
        distortions.gaussian_noise,
        (0.04, 0.06, 0.08, 0.09, 0.10),
        (0.04, 0.08, 0.12, 0.15, 0.18),
        (0.08, 0.12, 0.18, 0.26, 0.38),
    ),
    "shot_noise": (
        distortions.shot_noise,
        (500, 250, 100, 75, 50),
        (250, 100, 50, 30, 15),
        (60, 25, 12, 5, 3),
    ),
    "impulse_noise": (
        distortions.impulse_noise,
        (0.01, 0.02, 0.03, 0.05, 0.07),
        (0.01, 0.02, 0.05, 0.08, 0.14),
        (0.03, 0.06, 0.09, 0.17, 0.27),
    ),
    "defocus_blur": (
        distortions.defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": (
        distortions.glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": (
        distortions.motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": (
        distortions.zoom_blur,
        _ZOOMS,
        _ZOOMS,
        _zooms((1.11, 1.16, 1.21, 1.26, 1.31), (0.01, 0.01, 0.02, 0.02, 0.03)),
    ),
    "snow": (
        distortions.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (
        distortions.frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": (
        distortions.fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": (
        distortions.brightness,
        (0.05, 0.1, 0.15, 0.2, 0.3),
        (0.1, 0.2, 0.3, 0.4, 0.5),
        (0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    "contrast": (
        distortions.contrast,
        (0.75, 0.5, 0.4, 0.3, 0.15),
        (0.4, 0.3, 0.2, 0.1, 0.05),
        (0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    "elastic_transform": (
        distortions.elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
        (
            (2 * _W, 0.7 * _W, 0.1 * _W),
            (2 * _W, 0.08 * _W, 0.2 * _W),
            (0.05 * _W, 0.01 * _W, 0.02 * _W),
            (0.07 * _W, 0.01 * _W, 0.02 * _W),
            (0.12 * _W, 0.01 * _W, 0.02 * _W),
        ),
    ),
    "pixelate": (
        distortions.pixelate,
        (0.95, 0.9, 0.85, 0.75, 0.65),
        (0.9, 0.8, 0.7, 0.6, 0.5),
        (0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    "jpeg_compression": (
        distortions.jpeg_compression,
        (80, 65, 58, 50, 40),
        (65, 58, 50, 40, 25),
        (25, 18, 15, 10, 7),
    ),
}
"""Each: the function, and its strengths at severity 1 … 5 for images of each of `SIZES`."""
