"""Streams of the same classes in other domains: rotated, permuted, corrupted, or folders of domains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import ndimage

from cl.data.arrays import Array, ArrayDataset
from cl.data.computed import Lazy, mapped
from cl.data.corruptions import CORRUPTIONS, corrupt
from cl.data.datasets import DataSet
from cl.errors import require, suggest
from cl.stream import Stream, from_parts
from streams.datasets import load

Change = Callable[[Array, Array], Array]
"""Images (uint8 B × H × W × C) and their rows to images of the same shape."""


def domain_incremental(dataset: str | DataSet, domains: Sequence[str] = ()) -> Stream:
    """One experience per domain of a data set that has domains; the classes stay the same.

    dataset: a folder `domain/class/image` or the name of a data set with domains. domains: which ones in
    which order; all in their own order if none is given.
    """
    data = load(dataset)
    require(
        data.train_domains is not None,
        f"stream.dataset={dataset}: it has no domains. Use stream=rotated, permuted or corrupted, "
        "or a folder of domain/class/image.",
    )
    for name in domains:
        require(
            name in data.domain_names,
            f"stream.domains: {name} is none of {', '.join(data.domain_names)}.",
        )
    chosen = [data.domain_names.index(name) for name in domains or data.domain_names]
    train = [np.flatnonzero(data.train_domains == domain) for domain in chosen]
    test = [np.flatnonzero(data.test_domains == domain) for domain in chosen]
    return from_parts(data, train, range(data.classes), "domain-incremental", test)


def rotated(dataset: str | DataSet = "digits", tasks: int = 5, max_angle: float = 180.0) -> Stream:
    """All images in every task, turned by another angle (Lopez-Paz and Ranzato, 2017).

    The angles, in degrees, go in equal steps from 0 to `max_angle`, anticlockwise about the centre, bilinear;
    what comes in from outside is black.
    """
    require(tasks >= 1, f"stream.tasks={tasks}: it must be at least 1.")
    angles = np.linspace(0, max_angle, tasks) if tasks > 1 else np.zeros(1)
    return changed(
        load(dataset), {f"rotated/{a:g}": partial(rotate, angle=float(a)) for a in angles}
    )


def permuted(dataset: str | DataSet = "digits", tasks: int = 5, seed: int = 0) -> Stream:
    """All images in every task, their pixels in another fixed order (Kirkpatrick et al., 2017).

    The first task shows the images as they are. seed: of the permutations. No augmentation.
    """
    require(tasks >= 1, f"stream.tasks={tasks}: it must be at least 1.")
    data = replace(load(dataset), augmentation="none")
    generator, pixels = np.random.RandomState(seed), int(np.prod(data.train.images.shape[1:3]))
    orders = [np.arange(pixels), *(generator.permutation(pixels) for _ in range(tasks - 1))]
    return changed(
        data,
        {f"permuted/{seed}/{i}": partial(permute, order=order) for i, order in enumerate(orders)},
    )


def corrupted(
    dataset: str | DataSet = "digits",
    severity: int = 5,
    corruptions: Sequence[str] = (),
    seed: int = 0,
) -> Stream:
    """The images as they are, then in every task under another common corruption (Hendrycks and Dietterich,
    2019): noise, blur, weather and digital ones, all fifteen unless `corruptions` names some.

    severity: 1 … 5. seed: of the noise; training and test images have different noise. An experience is a
    domain; what the clean model makes of one that it has not seen is its forward transfer. The strengths and
    the differences from the authors' programs are in `cl.data.corruptions`.
    """
    names = list(corruptions or CORRUPTIONS)
    for name in names:
        require(name in CORRUPTIONS, f"stream.corruptions: {name}? {suggest(name, CORRUPTIONS)}")
    require(1 <= severity <= 5, f"stream.severity={severity}: it must be 1 … 5.")

    def changes(seed: int) -> dict[str, Change]:
        known: dict[str, Change] = {"clean": lambda images, rows: images}
        for name in names:
            change = partial(corrupt, name=name, severity=severity, seed=seed)
            known[f"{name}/{severity}/{seed}"] = change
        return known

    return changed(load(dataset), changes(2 * seed), changes(2 * seed + 1))


def at_test_time(
    dataset: str | DataSet = "digits",
    severity: int = 5,
    corruptions: Sequence[str] = (),
    seed: int = 0,
) -> Stream:
    """Test-time adaptation (as Wang et al., 2022): clean training images with labels; then, without labels,
    the test images under one corruption after another, all fifteen unless `corruptions` names some.

    The learner adapts to the images that it is tested on, but their labels are not shown to it; a strategy
    that asks for them ends with an error. The accuracy on the corruption that comes next is its forward
    transfer: what the model makes of it before it adapts. severity, seed: as in `corrupted`.
    """
    data = load(dataset)
    tested = corrupted(data, severity, corruptions, seed).test
    none = np.full(len(data.test.labels), -1, dtype=np.int64)
    hidden = [replace(part, labels=none) for part in tested[1:]]
    return Stream(
        data.name,
        "domain-incremental",
        (data.train, *hidden),
        tuple(tested),
        data.class_names,
        data.augmentation,
        data.card,
    )


def changed(
    data: DataSet, changes: dict[str, Change], test_changes: dict[str, Change] | None = None
) -> Stream:
    """A domain-incremental stream: in experience i all images are seen through the i-th change.

    test_changes: those of the test images, if they are others. The keys tell the changes apart in the
    stream's fingerprint. Nothing is computed before it is read.
    """
    for_test = test_changes or changes

    def seen_through(part: ArrayDataset, known: dict[str, Change], index: int) -> ArrayDataset:
        key = list(known)[index]
        return replace(part, images=mapped(part.images, known[key], key))

    return Stream(
        data.name,
        "domain-incremental",
        Lazy(len(changes), partial(seen_through, data.train, changes)),
        Lazy(len(changes), partial(seen_through, data.test, for_test)),
        data.class_names,
        data.augmentation,
        data.card,
        seen=[data.classes] * len(changes),
    )


def rotate(images: Array, rows: Array, angle: float) -> Array:
    """Turn uint8 B × H × W × C by `angle` degrees anticlockwise; the shape stays."""
    turned = ndimage.rotate(
        images.astype(np.float32), angle, axes=(2, 1), reshape=False, order=1, prefilter=False
    )
    return np.clip(np.round(turned), 0, 255).astype(np.uint8)


def permute(images: Array, rows: Array, order: Array) -> Array:
    """Pixel i of each image becomes pixel order[i] of the original, all channels together."""
    flat = images.reshape(len(images), -1, images.shape[3])
    return np.ascontiguousarray(flat[:, order].reshape(images.shape))
