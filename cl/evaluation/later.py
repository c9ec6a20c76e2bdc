"""Metrics of a run that is over, from what was answered in it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from cl.config import EvaluationConfig, as_object
from cl.data import Batch
from cl.data.arrays import Array
from cl.data.splits import DAMAGE
from cl.errors import ConfigurationError, DataError, require
from cl.evaluation import answers
from cl.evaluation.measuring import Measure
from cl.evaluation.metric import Context, Metric
from cl.learner_file import read_description
from cl.matrix import AccuracyMatrix
from cl.stored import as_config, load_yaml

SPLIT_BYTES = 1 << 28
"""The most that a column of split.npz may take."""

OUTPUTS = 1 << 22
"""How many numbers of outputs are made at once."""


@dataclass(frozen=True)
class Answered:
    """What a complete run keeps of its answers. labels: of each task's test images. rows: see `answers`."""

    class_names: tuple[str, ...]
    seen: Sequence[int]
    labels: Sequence[Array]
    rows: Sequence[Array]
    evaluation: EvaluationConfig

    @classmethod
    def read(cls, folder: Path) -> Answered:
        """Raises DataError or WeightsError if a file is missing or damaged, or the counts do not agree."""
        if not (folder / "summary.json").exists():
            raise DataError(
                f"{folder} holds no summary.json: it is no run folder, or the run is not complete."
            )
        matrix = AccuracyMatrix.read(folder / "accuracy_matrix.csv")
        names = tuple(read_description(folder / "learner")["class_names"])
        train, labels = (read_labels(folder / "split.npz", part) for part in ("train", "test"))
        largest = np.array([task.max(initial=-1) for task in (*train, *labels)])
        if len(train) != len(labels) or matrix.rows != len(labels) or max(largest) >= len(names):
            raise DataError(
                f"{folder / 'split.npz'} is damaged: its tasks or labels are not the run's."
            )
        seen = (np.maximum.accumulate(largest[: len(train)]) + 1).tolist()
        rows = answers.read(folder / answers.FILE, matrix, labels)
        config = as_config(load_yaml(folder / "config.yaml"), folder / "config.yaml")
        evaluation = as_object(config.get("evaluation") or DictConfig({}), EvaluationConfig)
        return cls(names, seen, labels, rows, evaluation)

    def measure(self, name: str, metric: Metric) -> Measure:
        """The metric after the last experience; ConfigurationError if it needs more than was kept."""
        more = metric.needs != "answers" or metric.when not in (None, "after")
        require(
            not more and type(metric).step is Metric.step,
            f"metric={name}: it looks at more than class and confidence of each answer, which is all that "
            f"was kept. It can be measured while a run works: metric=[{name}]",
        )
        measure = Measure(name, metric, "after", self.evaluation.tasks)
        for index, rows in enumerate(self.rows):
            names = self.class_names[: self.seen[index]]
            context = Context(index, len(self.rows), self.seen, names)
            measure.begin(context)
            for task, batch, outputs in self._batches(rows, self.seen[index]):
                if task < measure.reach(context):
                    measure.call("batch", task, batch, outputs)
            measure.finish()
        if measure.failed:
            raise ConfigurationError(f"metric={name}: {measure.failed}.")
        return measure

    def _batches(self, rows: Array, seen: int) -> Iterator[tuple[int, Batch, Tensor]]:
        """As `Metric.batch` gets them. Nobody can look at the images."""
        size = max(1, OUTPUTS // seen)
        for task in np.unique(rows["task"]).tolist():
            own = rows[rows["task"] == task]
            for start in range(0, len(own), size):
                some = own[start : start + size]
                positions = np.arange(start, start + len(some))
                labels = torch.from_numpy(self.labels[task][positions].astype(np.int64))
                yield (
                    task,
                    Batch(torch.empty(len(some), 0), labels, positions),
                    outputs_of(some, seen),
                )


def outputs_of(rows: Array, seen: int) -> Tensor:
    """Logits, rows × seen, with each answer's class and confidence; the other classes share what is left."""
    classes = torch.from_numpy(rows["class"].astype(np.int64))[:, None]
    confidence = torch.from_numpy(rows["confidence"].astype(np.float32)).clamp(min=1e-7)[:, None]
    shared = torch.minimum((1 - confidence) / max(1, seen - 1), 0.999 * confidence)  # rounded
    return shared.repeat(1, seen).scatter(1, classes, confidence).log()


def read_labels(file: Path, part: str) -> list[Array]:
    """The labels of every experience in a run's split.npz, of its "train" or "test" part; checked."""
    try:
        with zipfile.ZipFile(file) as archive:
            labels, lengths = (
                _column(archive, f"{part}_{name}", file) for name in ("labels", "lengths")
            )
    except FileNotFoundError:
        raise DataError(f"{file} is missing.") from None
    except DAMAGE as error:
        raise DataError(f"{file} is damaged: {error}.") from None
    if lengths.min(initial=0) < 0 or lengths.astype(object).sum() != len(labels):
        raise DataError(f"{file} is damaged: {part}_lengths are not those of {part}_labels.")
    return np.split(labels, np.cumsum(lengths)[:-1])


def _column(archive: zipfile.ZipFile, name: str, file: Path) -> Array:
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > SPLIT_BYTES:
        raise DataError(f"{file} is damaged: {name} has more than {SPLIT_BYTES >> 20} MB.")
    with archive.open(entry) as content:
        read = io.BytesIO(content.read(SPLIT_BYTES + 1))
    column = answers.read_array(read, file, (np.dtype("<i8"),))
    if column is None:
        raise DataError(f"{file} is damaged: {name} is cut short.")
    return column
