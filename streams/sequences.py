"""Streams across data sets, and a synthetic one of any length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from cl.data.arrays import Array, ArrayDataset
from cl.data.computed import Lazy, computed, mapped_to
from cl.data.datasets import DataCard, DataSet, MissingDataError
from cl.errors import require
from cl.stream import Stream
from streams.datasets import load

SYNTHETIC = DataCard(0, 0, 0, "8 × 8", "none needed", "computed by this program")


def sequence(
    datasets: Sequence[str | DataSet] = ("digits", "mnist"),
    scenario: Literal["class-incremental", "task-incremental"] = "class-incremental",
    image_size: int | None = None,
) -> Stream:
    """One data set after the other; each brings its own classes, named "data set: class".

    scenario: "task-incremental" tells the task at test. image_size: the side in pixels to which all images
    are scaled when they are read; null for the largest of all. Grey images become colour images. No
    augmentation, for what suits one data set spoils another. Five data sets of Ebrahimi et al. (2020) and
    the eight vision tasks of Ilharco et al. (2023) are such sequences.
    """
    require(len(datasets) > 0, "stream.datasets: give at least one, for example [digits,mnist].")
    require(
        scenario in ("class-incremental", "task-incremental"),
        f"stream.scenario={scenario}: it must be class-incremental or task-incremental.",
    )
    try:
        sets = [load(each) for each in datasets]
    except MissingDataError as error:
        raise MissingDataError(str(error)) from None  # the card of one of them is not the stream's
    sides = [side for data in sets for side in data.train.images.shape[1:3]]
    side = image_size or int(max(sides))
    require(side >= 1, f"stream.image_size={image_size}: it must be at least 1.")
    train, test, names = [], [], []
    for data in sets:
        train.append(_shifted(data.train, len(names), side))
        test.append(_shifted(data.test, len(names), side))
        names += [f"{data.name}: {name}" for name in data.class_names]
    title = "+".join(data.name for data in sets)
    return Stream(title, scenario, tuple(train), tuple(test), tuple(names))


def _shifted(data: ArrayDataset, first: int, side: int) -> ArrayDataset:
    """The data with labels from `first` on, and with colour images of `side` × `side` pixels."""
    images = data.images
    if images.shape[1:] != (side, side, 3):
        images = mapped_to((side, side, 3), images, partial(resized, side=side), f"resized/{side}")
    return ArrayDataset(images, data.labels + first, data.rows)


def resized(images: Array, rows: Array, side: int) -> Array:
    """uint8 B × H × W × C to B × side × side × 3, bicubic with antialiasing."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    if pixels.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
    colour = pixels.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
    return np.ascontiguousarray(colour.permute(0, 2, 3, 1).numpy())


def synthetic(
    experiences: int = 1000,
    new_classes: int = 2,
    images: int = 20,
    test_images: int = 10,
    noise: float = 25.0,
    image_size: int = 8,
    seed: int = 0,
) -> Stream:
    """A stream of as many experiences as asked, for studies of growth; images are computed when read.

    Class c is a random colour pattern; an image is the pattern plus normal noise with the standard
    deviation `noise` (of 255). new_classes: in every experience; 0 gives a domain-incremental stream of two
    classes whose patterns drift. images, test_images: of each class and experience. Neither time to start
    nor memory depends on how many experiences there are.
    """
    numbers = {"experiences": experiences, "images": images, "test_images": test_images}
    for name, number in {**numbers, "image_size": image_size}.items():
        require(number >= 1, f"stream.{name}={number}: it must be at least 1.")
    for name, least in {"new_classes": new_classes, "noise": noise, "seed": seed}.items():
        require(least >= 0, f"stream.{name}={least}: it must not be negative.")
    classes = new_classes or 2

    def part(index: int, each: int, which: int) -> ArrayDataset:
        first = index * new_classes
        labels = first + np.arange(classes * each, dtype=np.int64) % classes
        drift = 0 if new_classes else index

        def make(rows: Array) -> Array:
            patterns = np.stack(
                [_pattern(seed, first + c, drift, image_size) for c in range(classes)]
            )
            values = patterns[rows % classes]
            for image, row in zip(values, rows, strict=True):
                generator = np.random.Generator(np.random.PCG64([seed, which, index, int(row)]))
                image += noise * generator.standard_normal(image.shape)
            return np.clip(np.round(values), 0, 255).astype(np.uint8)

        shape = (len(labels), image_size, image_size, 3)
        key = f"synthetic/{seed}/{which}/{index}/{noise:g}"
        return ArrayDataset.of(computed(shape, make, key), labels)

    if new_classes:
        seen: Sequence[int] = range(new_classes, new_classes * experiences + 1, new_classes)
    else:
        seen = Lazy(experiences, lambda index: 2)
    return Stream(
        "synthetic",
        "class-incremental" if new_classes else "domain-incremental",
        Lazy(experiences, lambda index: part(index, images, 0)),
        Lazy(experiences, lambda index: part(index, test_images, 1)),
        Lazy(seen[-1], lambda label: f"class {label}"),
        card=SYNTHETIC,
        seen=seen,
    )


def _pattern(seed: int, label: int, drift: int, size: int) -> Array:
    """The pattern of a class, float64 size × size × 3. It moves to another one in 20 steps of `drift`."""
    generator = np.random.Generator(np.random.PCG64([seed, 2, label]))
    start, end = generator.integers(0, 256, (2, size, size, 3)).astype(np.float64)
    share = (1 - np.cos(np.pi * drift / 20)) / 2
    return start + share * (end - start)
