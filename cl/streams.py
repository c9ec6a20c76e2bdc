"""What streams there are, and what is in them.

python -m cl.streams                                            a table of all of them
python -m cl.streams show split_digits out.png stream.tasks=2   a picture of one
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from cl.cli import expand_targets
from cl.data.arrays import Array
from cl.data.datasets import MissingDataError
from cl.errors import DataError, PalimpsestError
from cl.instantiate import build
from cl.overrides import check
from cl.stream import Stream

WIDTH = 140
"""Of the table in characters, when it goes to a file."""

SHOWN = 200
"""At most so many experiences are looked at; a longer stream is sampled evenly."""


@dataclass(frozen=True)
class Row:
    """What the table says of a stream; "" where it is not known."""

    name: str
    here: str
    scenario: str = ""
    classes: str = ""
    tasks: str = ""
    images: str = ""
    size: str = ""
    licence: str = ""


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cl.streams", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="a table of all streams (the default)")
    show = commands.add_parser("show", help="draw samples, classes and counts of one stream")
    show.add_argument("stream", help="its name, as in stream=…")
    show.add_argument("file", type=Path, help="where the picture goes: .png, .pdf or .svg")
    show.add_argument("overrides", nargs="*", help="such as stream.tasks=2")
    chosen = parser.parse_args(arguments)
    sys.path.append(str(Path.cwd()))  # a user's own module
    try:
        if chosen.command == "show":
            draw(configured(chosen.stream, chosen.overrides), chosen.file)
            print(f"{chosen.file} shows {chosen.stream}.")
        else:
            console = Console()
            console.width = console.width if console.is_terminal else WIDTH
            console.print(table(rows()))
    except PalimpsestError as error:
        sys.exit(f"error: {error}")


def configured(name: str, overrides: list[str]) -> Stream:
    """The stream that `python run.py stream=<name> <overrides>` would train on."""
    words = expand_targets([f"stream={name}", *overrides])
    check(words)
    with hydra.initialize_config_module("configs", version_base="1.3"):
        stream: Stream = build(hydra.compose("config", words).stream, "stream")
    return stream


def rows() -> list[Row]:
    """One row per configuration in configs/stream, in the order of their names. Nothing is downloaded."""
    found = sorted(file.name for file in files("configs").joinpath("stream").iterdir())
    names = [name.removesuffix(".yaml") for name in found if name.endswith(".yaml")]
    before = os.environ.get("CL_OFFLINE")
    os.environ["CL_OFFLINE"] = "1"
    try:
        return [row(name) for name in names if name != "custom"]
    finally:
        if before is None:
            del os.environ["CL_OFFLINE"]
        else:
            os.environ["CL_OFFLINE"] = before


def row(name: str) -> Row:
    """What there is to say of the stream of this name."""
    text = files("configs").joinpath("stream").joinpath(f"{name}.yaml").read_text()
    node = OmegaConf.create(text)
    assert isinstance(node, DictConfig)
    needs = [f"stream.{key}" for key in node.stream if OmegaConf.is_missing(node.stream, str(key))]
    if needs:
        return Row(name, f"give {', '.join(needs)}")
    try:
        stream: Stream = build(node.stream, "stream")
    except MissingDataError as error:
        card = error.card
        if card is None:
            return Row(name, "no")
        images = f"{card.train:,} + {card.test:,}"
        known = {"images": images, "size": card.size, "licence": card.licence}
        return Row(name, "no", classes=f"{card.classes:,}", **known)
    except DataError as error:
        return Row(name, str(error).splitlines()[0])
    height, width = stream.train[0].images.shape[1:3]
    return Row(
        name,
        "yes",
        stream.scenario,
        f"{len(stream.class_names):,}",
        f"{len(stream):,}",
        f"{sum(map(len, stream.train)):,} + {sum(map(len, stream.test)):,}",
        f"{height} × {width}",
        stream.card.licence if stream.card else "",
    )


def table(listed: list[Row]) -> Table:
    """The rows as rich draws them."""
    made = Table(title="streams (images: training + test, all experiences together)")
    for heading in ("stream", "here", "scenario", "classes", "tasks", "images", "size", "licence"):
        right = heading in ("classes", "tasks", "images", "size")
        wraps = heading in ("here", "licence")
        made.add_column(heading, justify="right" if right else "left", no_wrap=not wraps)
    for each in listed:
        made.add_row(*vars(each).values())
    return made


def draw(stream: Stream, file: Path, columns: int = 10, samples: int = 4) -> None:
    """Draw `samples` images of up to `columns` experiences, when which class comes, and the counts."""
    from matplotlib.figure import Figure

    from cl.report.plots import plain

    chosen = _spread(len(stream), SHOWN)
    shown = _spread(len(stream), columns)
    figure = Figure(figsize=(11, 9), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[samples, 6])
    top, bottom = parts
    axes = top.subplots(samples, len(shown), squeeze=False)
    for column, index in enumerate(shown):
        images, names = _samples(stream, index, samples)
        for line in range(samples):
            axes[line, column].axis("off")
            if line < len(images):
                axes[line, column].imshow(images[line].squeeze(), cmap="gray", vmin=0, vmax=255)
                axes[line, column].set_title(plain(names[line][:14]), fontsize=7, pad=2)
    top.suptitle(
        f"{plain(stream.name)}: {stream.scenario}, {len(stream)} experiences, "
        f"{len(stream.class_names)} classes\nsamples of experiences {', '.join(str(i + 1) for i in shown)}",
        fontsize=10,
    )
    timeline, counts = bottom.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    known = [stream.train[index].targets for index in chosen]
    grid = np.stack(
        [np.bincount(each[each >= 0], minlength=len(stream.class_names)) for each in known], 1
    ).astype(float)
    grid[grid == 0] = np.nan
    picture = timeline.imshow(grid, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0)
    timeline.set_ylabel("class, in order of arrival")
    bottom.colorbar(picture, ax=timeline, label="training images")
    places = np.arange(len(chosen))
    for offset, (label, sets) in enumerate((("training", stream.train), ("test", stream.test))):
        heights = [len(sets[index]) for index in chosen]
        counts.bar(places + 0.4 * (offset - 0.5), heights, width=0.4, label=label)
    ticks = _spread(len(chosen), 20)
    counts.set_xticks(ticks, [str(chosen[tick] + 1) for tick in ticks])
    counts.set_xlabel("experience")
    counts.set_ylabel("images")
    counts.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


def _samples(stream: Stream, index: int, count: int) -> tuple[Array, list[str]]:
    """Images of the experience, of as many different classes as there are, and the names of these."""
    data = stream.train[index]
    targets = data.targets
    _, first = np.unique(targets, return_index=True)
    others = np.setdiff1d(np.arange(len(targets)), first)
    picked = np.concatenate([first[_spread(len(first), count)], others])[:count]
    images, labels = data.take(picked)
    return images, [stream.class_names[label] if label >= 0 else "no label" for label in labels]


def _spread(length: int, count: int) -> list[int]:
    """At most `count` of 0 … length − 1, evenly, with both ends."""
    if length <= count:
        return list(range(length))
    return [int(i) for i in np.unique(np.linspace(0, length - 1, count).round())]


if __name__ == "__main__":
    main()
