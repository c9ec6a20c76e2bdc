"""Procedural images: strokes, shapes, textures, and invented characters in many hands."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def _colour(rng: np.random.Generator, grey: bool) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return (red, red, red) if grey else (red, green, blue)


def _curve(rng: np.random.Generator, side: int) -> list[tuple[float, float]]:
    """A cubic Bézier curve, an arc or a broken line inside a square."""
    kind = rng.integers(3)
    t = np.linspace(0, 1, 24)[:, None]
    if kind == 0:
        p = rng.uniform(0.1, 0.9, (4, 2))
        xy = (1 - t) ** 3 * p[0] + 3 * (1 - t) ** 2 * t * p[1] + 3 * (1 - t) * t**2 * p[2]
        xy = xy + t**3 * p[3]
    elif kind == 1:
        angle = rng.uniform(0, 2 * math.pi) + t * rng.uniform(1.5, 6.6)
        xy = rng.uniform(0.3, 0.7, 2) + rng.uniform(0.08, 0.35, 2) * np.hstack(
            [np.cos(angle), np.sin(angle)]
        )
    else:
        xy = rng.uniform(0.1, 0.9, (rng.integers(2, 5), 2))
    return [(float(x), float(y)) for x, y in xy * side]


def _texture(rng: np.random.Generator, side: int) -> Image.Image:
    """Coloured noise or a sum of waves, sometimes made binary."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, side)] * 2))
    waves = rng.normal(0, rng.uniform(2, 12), (rng.integers(1, 6), 2)) * 2 * math.pi
    field = np.cos(np.einsum("kc,chw->khw", waves, grid) + rng.uniform(0, 6, (len(waves), 1, 1)))
    values = field.mean(0) + rng.uniform(0, 0.5) * rng.normal(size=(side, side))
    values = np.sign(values) if rng.random() < 0.3 else values / (np.abs(values).max() + 1e-6)
    low, high = rng.uniform(0, 255, (2, 3))
    mixed = low + (high - low) * (values[..., None] + 1) / 2
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def draw(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """One procedural image, uint8 side×side×3: strokes, shapes or a texture, on any background."""
    big, grey = 2 * side, rng.random() < 0.6
    back = _colour(rng, grey)
    if rng.random() < 0.5:  # ink on paper and chalk on slate are the commonest line drawings
        back = (0, 0, 0) if rng.random() < 0.7 else (255, 255, 255)
    canvas = Image.new("RGB", (big, big), back)
    if rng.random() < 0.2:
        canvas = _texture(rng, big)
    pen = ImageDraw.Draw(canvas)
    ink = _colour(rng, grey) if back[0] not in (0, 255) else tuple(255 - c for c in back)
    if rng.random() < 0.7:
        width = int(rng.integers(4, 22))
        for _ in range(rng.integers(1, 5)):
            pen.line(_curve(rng, big), fill=ink, width=width, joint="curve")
    else:
        for _ in range(rng.integers(1, 6)):
            x, y = sorted(rng.uniform(0, big, 2)), sorted(rng.uniform(0, big, 2))
            shape = (pen.ellipse, pen.rectangle)[rng.integers(2)]
            if rng.random() < 0.3:
                pen.polygon(_curve(rng, big), fill=_colour(rng, grey))
            else:
                shape((x[0], y[0], x[1], y[1]), fill=_colour(rng, grey))
    if rng.random() < 0.3:  # low resolution, as in small scans
        low = int(rng.integers(8, 24))
        canvas = canvas.resize((low, low), Image.Resampling.BOX)
    canvas = canvas.resize((side, side), Image.Resampling.BICUBIC)
    if rng.random() < 0.2:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2)))
    return np.asarray(canvas)


def glyph(rng: np.random.Generator) -> list[np.ndarray]:
    """An invented character: one to three strokes, each a list of points in the unit square."""
    strokes = [np.array(_curve(rng, 1)) for _ in range(rng.integers(1, 4))]
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    return [(stroke - (low + high) / 2) / max(*(high - low), 0.3) for stroke in strokes]


def write(strokes: list[np.ndarray], rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """The glyph as some hand would write it: uint8 side×side×3.

    Size, slant, rotation, place, a smooth distortion, the pen, the colours and the resolution vary.
    """
    big = 4 * side
    angle, slant = rng.normal(0, 0.15), rng.normal(0, 0.2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    affine = turn @ np.array([[1, slant], [0, 1]]) @ np.diag(rng.uniform(0.55, 0.95, 2))
    waves, phase = rng.normal(0, 1.5, (2, 2)), rng.uniform(0, 2 * math.pi, 2)
    centre = 0.5 + rng.uniform(-0.08, 0.08, 2)
    back, ink = (0, 0, 0), (255, 255, 255)
    if rng.random() < 0.4:
        back, ink = _colour(rng, grey=False), _colour(rng, grey=False)
    canvas = Image.new("RGB", (big, big), back)
    pen, width = ImageDraw.Draw(canvas), int(rng.uniform(0.05, 0.16) * big)
    for stroke in strokes:
        points = stroke @ affine.T
        points = points + 0.06 * np.sin(math.pi * points @ waves + phase) + centre
        pen.line([(x * big, y * big) for x, y in points], fill=ink, width=width, joint="curve")
    if rng.random() < 0.4:
        low = int(rng.integers(7, 20))
        canvas = canvas.resize((low, low), Image.Resampling.BOX)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BICUBIC))
