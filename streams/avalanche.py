"""Avalanche (Carta et al., 2023) on both sides: its benchmarks as streams, and streams as its benchmarks.

Avalanche is imported when a function is called, and not before.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cl.data.arrays import Array, ArrayDataset
from cl.data.avalanche import Images, labelled
from cl.data.computed import computed
from cl.data.datasets import MissingDataError
from cl.errors import DataError, require, suggest
from cl.stream import Stream
from streams.datasets.places import data_folder, offline


def avalanche(
    benchmark: str = "SplitMNIST",
    arguments: dict[str, Any] | None = None,
    scenario: str | None = None,
) -> Stream:
    """A stream from one of Avalanche's benchmarks, such as SplitTinyImageNet, PermutedMNIST or CORe50.

    arguments: what the benchmark takes, for example {n_experiences: 5, seed: 1}; its data lie in
    CL_DATA_DIR, where Avalanche puts them. scenario: null looks at the classes (see `from_avalanche`).
    """
    if offline():
        raise MissingDataError(f"{benchmark}: Avalanche may download it, and CL_OFFLINE is set.")
    from avalanche import benchmarks

    names = [name for name in vars(benchmarks) if name[0].isupper()]
    require(
        benchmark in names, f"stream.benchmark={benchmark}: {suggest(benchmark, names)} (Avalanche)"
    )
    create = getattr(benchmarks, benchmark)
    given = dict(arguments or {})
    require(  # some benchmarks unpickle what they find there
        "dataset_root" not in given,
        "stream.arguments.dataset_root: the data lie in CL_DATA_DIR. Set that instead.",
    )
    known = inspect.signature(create).parameters
    for key in given:
        require(key in known, f"stream.arguments.{key}: {benchmark} has no such argument.")
    if "dataset_root" in known:
        given.setdefault("dataset_root", str(data_folder()))
    try:
        made = create(**given)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise DataError(f"Avalanche cannot make {benchmark}: {error}") from error
    return from_avalanche(made, benchmark, scenario=scenario)


def from_avalanche(
    benchmark: Any,
    name: str = "avalanche",
    class_names: Sequence[str] | None = None,
    scenario: str | None = None,
) -> Stream:
    """Any Avalanche benchmark of images as a stream; its transforms are left out.

    class_names: by Avalanche's class numbers; without them the numbers are the names. scenario: without it,
    "class-incremental" if no class comes twice, "domain-incremental" if all come always, else "blurry".
    A benchmark with a single test set is split by the classes of each experience.
    """
    train = [_arrays(experience) for experience in benchmark.train_stream]
    test = [_arrays(experience) for experience in benchmark.test_stream]
    classes = [set(data.targets.tolist()) for data in train]
    order = list(dict.fromkeys(c for found in classes for c in sorted(found)))
    if len(test) == 1 < len(train):
        held = test[0]
        wanted = [np.flatnonzero(np.isin(held.targets, list(found))) for found in classes]
        test = [held.subset(positions) for positions in wanted]
    number = {label: position for position, label in enumerate(order)}
    names = [str(label) if class_names is None else class_names[label] for label in order]
    return Stream(
        name,
        scenario or _scenario(classes),
        tuple(_renumbered(data, number) for data in train),
        tuple(_renumbered(data, number) for data in test),
        tuple(names),
    )


def to_avalanche(stream: Stream) -> Any:
    """The stream as an Avalanche benchmark: tensors C × H × W in [0, 1], a class timeline, task labels.

    Images are read when Avalanche asks for them.
    """
    from avalanche.benchmarks import (
        benchmark_from_datasets,
        with_classes_timeline,
        with_task_labels,
    )

    if any((data.targets < 0).any() for data in stream.train):
        raise DataError(f"{stream.name}: Avalanche has no experiences without labels.")

    def converted(sets: Sequence[ArrayDataset]) -> list[Any]:
        told = stream.scenario == "task-incremental"
        return [
            labelled(Images(data), data.targets.tolist(), index if told else 0)
            for index, data in enumerate(sets)
        ]

    benchmark = benchmark_from_datasets(train=converted(stream.train), test=converted(stream.test))
    return with_task_labels(with_classes_timeline(benchmark))


def _arrays(experience: Any) -> ArrayDataset:
    source = experience.dataset.replace_current_transform_group(None)
    labels = np.array([int(label) for label in source.targets], dtype=np.int64)

    def make(rows: Array) -> Array:
        images = [_bytes(source[int(row)][0]) for row in rows]
        if len({image.shape for image in images}) > 1:
            raise DataError("Avalanche's images differ in size; only equal ones make a stream.")
        return np.stack(images)

    height, width, channels = _bytes(source[0][0]).shape
    shape = (len(labels), height, width, channels)
    return ArrayDataset.of(computed(shape, make, "avalanche"), labels)


def _bytes(image: Any) -> Array:
    """A PIL image, an array, or a tensor C × H × W, as uint8 H × W × C."""
    if isinstance(image, Tensor):
        values = image.permute(1, 2, 0) if image.ndim == 3 else image
        if values.is_floating_point():
            if values.min() < 0 or values.max() > 1:
                raise DataError(
                    "Avalanche's images are standardised; give the benchmark no transform."
                )
            values = (255 * values).round().to(torch.uint8)
        found = values.numpy()
    else:
        found = np.asarray(image)
    return found[..., None] if found.ndim == 2 else found


def _renumbered(data: ArrayDataset, number: dict[int, int]) -> ArrayDataset:
    labels = np.array([number.get(label, -1) for label in data.labels.tolist()], dtype=np.int64)
    return ArrayDataset(data.images, labels, data.rows)


def _scenario(classes: Sequence[set[int]]) -> str:
    if all(found == classes[0] for found in classes):
        return "class-incremental" if len(classes) == 1 else "domain-incremental"
    together = sum(len(found) for found in classes)
    return "class-incremental" if together == len(set().union(*classes)) else "blurry"
