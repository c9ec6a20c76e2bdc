"""report.html: one run on one page that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from cl.report import plots
from cl.report.runs import Run, measured
from cl.stream import Stream

PICTURES = 8
"""Sample images per task."""

SHOWN_TASKS = 50
"""Of a longer stream only the first tasks are shown as images."""

LARGEST = 96
"""Larger sample images are reduced to so many pixels."""

SMALLEST = 48
"""Smaller ones are enlarged to so many, without smoothing."""


@dataclass(frozen=True)
class Sample:
    """An image of the stream as a data URI, and the name of its class."""

    name: str
    image: str


def write_report(folder: Path, stream: Stream | None = None) -> Path:
    """Write `report.html` into the finished run folder; the sample images come from `stream`."""
    run = Run.load(folder)
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    # Everything that is filled in is escaped: names come from data and from configurations.
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    tasks = [] if stream is None else [samples(stream, task) for task in _first(len(stream))]
    html = page.from_string(template).render(
        run=run,
        summary=run.summary,
        names=run.summary["names"],
        figures=_figures(run),
        headline=_headline(run),
        measured=measured(run.summary),
        configuration=_flat(run.config),
        environment=_flat({key: run.summary.get(key) for key in ("versions", "hardware")}),
        tasks=tasks,
        left_out=0 if stream is None else len(stream) - len(tasks),
    )
    file = folder / "report.html"
    file.write_text(html, encoding="utf-8")
    return file


def samples(stream: Stream, task: int) -> list[Sample]:
    """A few training images of a task, of as many classes as possible."""
    data = stream.train[task]
    targets = data.targets
    order = np.argsort(targets, kind="stable")
    ranks = np.empty(len(targets), dtype=np.int64)  # 0 for the first image of a class, 1 for …
    starts = np.searchsorted(targets[order], targets[order])
    ranks[order] = np.arange(len(targets)) - starts
    chosen = np.lexsort((targets, ranks))[:PICTURES]
    chosen = chosen[np.argsort(targets[chosen], kind="stable")]
    images, labels = data.take(chosen)
    return [
        Sample(str(stream.class_names[label]) if label >= 0 else "no label", _png(image))
        for image, label in zip(images, labels, strict=True)
    ]


def _first(tasks: int) -> range:
    return range(min(tasks, SHOWN_TASKS))


def _png(pixels: np.ndarray[Any, Any]) -> str:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((LARGEST, LARGEST))
    if max(image.size) < SMALLEST:
        factor = -(-SMALLEST // max(image.size))
        image = image.resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
    raw = io.BytesIO()
    image.save(raw, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(raw.getvalue()).decode()}"


def _figures(run: Run) -> dict[str, str]:
    R, events = run.accuracy, run.experiences
    figures: dict[str, Figure] = {
        "curves": plots.curves(R),
        "matrix": plots.heat_map(R),
    }
    if run.summary.get("forgetting") is not None:
        figures["forgetting"] = plots.learning_and_forgetting(R)
    for key, label, unit in (
        ("trainable_parameters", "trainable parameters", 1),
        ("stored_numbers", "stored numbers", 1),
        ("peak_memory_bytes", "peak memory (MiB)", 2**20),
    ):
        values = _column(events, key)
        if values:
            figures[key] = plots.over_experiences([value / unit for value in values], label)
    training = _column(events, "training_seconds")
    evaluation = _column(events, "evaluation_seconds")
    if training and evaluation:
        figures["time"] = plots.stacked_times({"training": training, "evaluation": evaluation})
    if run.steps:
        figures["loss"] = _losses(run.steps)
    if (inside := _inside(run.steps)) is not None:
        figures["inside"] = inside
    return {name: _uri(figure) for name, figure in figures.items()}


def _losses(events: Sequence[dict[str, Any]]) -> Figure:
    """The loss and its parts. A part that was not reported with every step is left out."""
    known = {"event", "experience", "step", "steps", "total_steps", "images_per_second", "lr"}
    names = [key for key in events[0] if key not in known and not key.startswith("metrics.")]
    names = [name for name in names if all(name in event for event in events)]
    parts = {name: [float(event[name]) for event in events] for name in names}
    return plots.over_steps([event["total_steps"] for event in events], parts, "loss")


def _inside(events: Sequence[dict[str, Any]]) -> Figure | None:
    """What metrics measured every few steps; None if none did."""
    names = {name for event in events for name in event if name.startswith("metrics.")}
    told = [event for event in events if names and names <= event.keys()]
    series = {
        name.removeprefix("metrics."): [float(event[name]) for event in told]
        for name in sorted(names)
    }
    steps = [event["total_steps"] for event in told]
    return plots.over_steps(steps, series, "inside the experiences") if told else None


def _column(events: Sequence[dict[str, Any]], key: str) -> list[float]:
    """One value per experience, or nothing if some do not have it."""
    values = [event.get(key) for event in events]
    return [] if None in values else [float(value) for value in values if value is not None]


def _uri(figure: Figure) -> str:
    """As an image, so that the ids of one figure do not meet those of another."""
    raw = plots.to_svg(figure).encode()
    return f"data:image/svg+xml;base64,{base64.b64encode(raw).decode()}"


def _headline(run: Run) -> list[tuple[str, str, str]]:
    """Name, value and meaning of the figures that a person wants first."""
    shown = []
    for key, meaning in (
        ("average_accuracy", "mean over all tasks, at the end"),
        ("average_incremental_accuracy", "mean over experiences of the mean over the tasks seen"),
        ("learning_accuracy", "mean over tasks, each right after it was learnt"),
        ("forgetting", "best earlier accuracy minus the last, mean over the earlier tasks"),
        ("backward_transfer", "last accuracy minus the first, mean over the earlier tasks"),
        ("forward_transfer", "accuracy on the task to come, above chance"),
    ):
        value = run.summary.get(key)
        if value is not None:
            shown.append((key.replace("_", " "), f"{100 * value:.1f} %".replace("-", "−"), meaning))
    return shown


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
