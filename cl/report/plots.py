"""The pictures of a run. Every function returns a matplotlib figure of its own; none touches pyplot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from cl.metrics import Matrix
from cl.names import shown

COLOURS = ("#2a6f97", "#d1495b", "#3a7d44", "#e09f3e", "#6a4c93", "#30638e", "#8d6346", "#5c677d")
MAP = "YlGnBu"
NUMBERED = 20
"""Up to this many tasks the cells of a heat map hold their numbers, and every task has a curve."""


def shade(accuracy: float) -> tuple[int, int, int]:
    """The colour of an accuracy (a share), red, green and blue from 0 to 255."""
    red, green, blue, _ = colormaps[MAP](0.1 + 0.75 * float(np.clip(accuracy, 0, 1)), bytes=True)
    return int(red), int(green), int(blue)


def is_dark(colour: tuple[int, int, int]) -> bool:
    """Whether white letters are read better on this colour than black ones."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140


def heat_map(R: Matrix) -> Figure:
    """The accuracy matrix: a row per experience, a column per task, numbers in per cent."""
    tasks = len(R)
    side = float(np.clip(0.45 * tasks, 2.6, 8))
    figure, axes = _axes(side + 0.9, side + 0.3)
    pixels = np.ones((tasks, tasks, 3))
    for i, j in zip(*np.nonzero(~np.isnan(R)), strict=True):
        colour = shade(R[i, j])
        pixels[i, j] = np.asarray(colour) / 255
        if tasks <= NUMBERED:
            letters = "white" if is_dark(colour) else "black"
            text = f"{100 * R[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", color=letters, fontsize=8)
    axes.imshow(pixels, interpolation="nearest")
    axes.set(xlabel="accuracy (%) on task", ylabel="after task")
    ticks = np.unique(np.linspace(0, tasks - 1, min(tasks, NUMBERED)).round().astype(int))
    axes.set_xticks(ticks, [str(tick + 1) for tick in ticks])
    axes.set_yticks(ticks, [str(tick + 1) for tick in ticks])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    return figure


def curves(R: Matrix) -> Figure:
    """Accuracy over experiences: the mean over the tasks seen, and each task by itself."""
    figure, axes = _axes(9.6, 3.9)
    x = np.arange(1, len(R) + 1)
    if len(R) <= NUMBERED:
        for task in range(len(R)):
            colour = colormaps["viridis"](0.85 * task / max(1, len(R) - 1))
            axes.plot(x[task:], 100 * R[task:, task], "o-", color=colour, ms=3, lw=1, alpha=0.75)
            axes.annotate(
                f"{task + 1}",
                (x[task], 100 * R[task, task]),
                (0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=colour,
            )
    means = [100 * float(np.mean(R[i, : i + 1])) for i in range(len(R))]
    axes.plot(x, means, "s-", color="black", lw=2.2, ms=4, label="mean of the tasks seen")
    axes.set(xlabel="after task", ylabel="accuracy (%)")
    axes.legend(frameon=False, loc="lower left", fontsize=8)
    _whole_numbers(axes, len(R))
    return figure


def learning_and_forgetting(R: Matrix) -> Figure:
    """For each task: the accuracy right after it was learnt, and at the end."""
    figure, axes = _axes(5.4, 3.6)
    x, learnt, final = np.arange(1, len(R) + 1), 100 * np.diag(R), 100 * R[-1]
    axes.vlines(x, np.minimum(learnt, final), np.maximum(learnt, final), color="#bbbbbb", lw=3)
    axes.plot(x, learnt, "o", color=COLOURS[0], label="right after it was learnt")
    axes.plot(x, final, "D", color=COLOURS[1], ms=5, label="at the end")
    axes.set(xlabel="task", ylabel="accuracy (%)")
    axes.legend(frameon=False, fontsize=8)
    _whole_numbers(axes, len(R))
    return figure


def over_experiences(values: Sequence[float], label: str) -> Figure:
    """One quantity after each experience, from zero upwards."""
    figure, axes = _axes(3.9, 2.6)
    x = np.arange(1, len(values) + 1)
    axes.fill_between(x, values, color=COLOURS[0], alpha=0.15, lw=0)
    axes.plot(x, values, "o-", color=COLOURS[0], ms=3)
    axes.set(xlabel="after task", ylabel=label)
    axes.set_ylim(0, 1.1 * max([*values, 1e-9]))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    _whole_numbers(axes, len(values))
    return figure


def stacked_times(parts: Mapping[str, Sequence[float]]) -> Figure:
    """Seconds per experience, one colour per part."""
    figure, axes = _axes(9.6, 2.8)
    bottom = np.zeros(len(next(iter(parts.values()))))
    x = np.arange(1, len(bottom) + 1)
    for colour, (name, seconds) in zip(COLOURS, parts.items(), strict=False):
        total = f"{name} ({sum(seconds):.1f} s)"
        axes.bar(x, seconds, bottom=bottom, color=colour, width=0.7, label=total)
        bottom += seconds
    axes.set(xlabel="task", ylabel="seconds")
    axes.legend(frameon=False, fontsize=8)
    _whole_numbers(axes, len(x))
    return figure


def over_steps(steps: Sequence[float], series: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Some quantities over the steps of the optimiser, such as the loss and its parts."""
    figure, axes = _axes(9.6, 3.2)
    for colour, (name, values) in zip(COLOURS, series.items(), strict=False):
        axes.plot(steps, values, color=colour, lw=1.2, label=name.replace("_", " "))
    axes.set(xlabel="step", ylabel=label)
    axes.legend(frameon=False, fontsize=8)
    return figure


def bands(groups: Mapping[str, Matrix], label: str) -> Figure:
    """A curve per group with a band of ± one standard deviation. groups: runs × experiences, shares."""
    figure, axes = _axes(6.2, 3.8)
    for index, (name, values) in enumerate(groups.items()):
        colour = COLOURS[index % len(COLOURS)]
        x, mean = np.arange(1, values.shape[1] + 1), 100 * values.mean(0)
        style = ("-", "--", ":", "-.")[index // len(COLOURS) % 4]
        axes.plot(x, mean, style, color=colour, marker="o", ms=3, label=plain(name))
        if len(values) > 1:
            deviation = 100 * values.std(0, ddof=1)
            axes.fill_between(x, mean - deviation, mean + deviation, color=colour, alpha=0.2, lw=0)
    axes.set(xlabel="after task", ylabel=label)
    axes.legend(frameon=False, fontsize=8)
    _whole_numbers(axes, max(values.shape[1] for values in groups.values()))
    return figure


def scatter(
    points: Mapping[str, Matrix], x_label: str, y_label: str, logarithmic: bool = False
) -> Figure:
    """A colour per group: a small dot per run, a large one for their mean. points: runs × 2."""
    figure, axes = _axes(4.8, 3.8)
    for index, (name, values) in enumerate(points.items()):
        colour = COLOURS[index % len(COLOURS)]
        marker = ("o", "D", "^", "v")[index // len(COLOURS) % 4]
        axes.plot(*values.T, marker, color=colour, ms=4, alpha=0.35, mew=0)
        axes.plot(*values.mean(0), marker, color=colour, ms=9, mec="white", label=plain(name))
    if logarithmic:
        axes.set_xscale("log")
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.margins(0.12)
    axes.legend(frameon=False, fontsize=8)
    return figure


def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element; the same figure gives the same text."""
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "palimpsest"}):  # else its ids are random
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def to_pixels(figure: Figure) -> Matrix:
    """The figure as an image, uint8 H × W × 3."""
    raw = io.BytesIO()
    figure.savefig(raw, format="rgba", dpi=100)
    width, height = (round(100 * side) for side in figure.get_size_inches())
    pixels = np.frombuffer(raw.getvalue(), dtype=np.uint8).reshape(height, width, 4)
    return np.ascontiguousarray(pixels[..., :3])


def save(figure: Figure, stem: Path) -> None:
    """Write the figure as `<stem>.png` and `<stem>.pdf`."""
    figure.savefig(stem.with_suffix(".png"), dpi=200)
    figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    return figure, axes


def plain(name: str) -> str:
    """Names are data: a dollar would start a formula, and a leading underscore hides a legend entry."""
    return (" " if name.startswith("_") else "") + shown(name).replace("$", r"\$")


def _whole_numbers(axes: Axes, last: int) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, last + 0.5)
