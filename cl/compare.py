"""Compare runs:  python -m cl.compare runs/… [--by strategy] [--metric average_accuracy]

Prints mean ± standard deviation over seeds and, with --baseline, the paired differences; with --out also
writes them as Markdown, CSV and LaTeX, and draws them.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cl.errors import ConfigurationError, PalimpsestError, require, suggest
from cl.names import cell, shown
from cl.report import plots
from cl.report.groups import (
    CONFIDENCE,
    Difference,
    Group,
    Statistic,
    check_comparable,
    find_runs,
    group_runs,
    lookup,
)
from cl.report.runs import Run

METRICS = (
    "average_accuracy",
    "average_incremental_accuracy",
    "learning_accuracy",
    "forgetting",
    "backward_transfer",
)
COSTS = ("seconds", "trainable_parameters", "stored_numbers")

LOWER = ("forgetting", "error", "rate", "bias", "drift", "intransigence", "gap", *COSTS)
"""What the names of numbers end in of which less is better."""

LARGEST = 1e30
"""A number of a summary that is larger, infinite or NaN was not measured."""


@dataclass(frozen=True)
class Comparison:
    """Groups in the order of their mean `metric`, best first. left_out: what could not be read, and why."""

    groups: tuple[Group, ...]
    metric: str
    baseline: Group | None
    left_out: dict[Path, str] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The metrics of the table: the chosen one first."""
        runs = [run for group in self.groups for run in group.runs]
        return list(dict.fromkeys([self.metric, *METRICS, *_measured(runs), *COSTS]))

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as a person reads them: accuracies in per cent."""
        header = ["", "n", *(column_name(key) for key in self.columns)]
        if self.baseline:
            header.append(f"{column_name(self.metric)} − {shown(self.baseline.name)}")
        rows = []
        for group in self.groups:
            row = [shown(group.name), str(len(group.runs))]
            row += [show(Statistic.of(group.values(key)), key) for key in self.columns]
            if self.baseline:
                row.append(self._difference(group))
            rows.append(row)
        return header, rows

    def _difference(self, group: Group) -> str:
        assert self.baseline
        if group is self.baseline:
            return "baseline"
        found = Difference.between(group, self.baseline, self.metric)
        scale, digits = unit(self.metric)
        if not found.n:
            return "no seed in common"
        mean = f"{scale * found.mean:+.{digits}f}"
        if math.isnan(found.half_width):
            return f"{mean} (1 pair)"
        low, high = (scale * (found.mean + s * found.half_width) for s in (-1, 1))
        return f"{mean} [{low:+.{digits}f}, {high:+.{digits}f}] ({found.n} pairs)"

    @property
    def caption(self) -> str:
        """What the figures of the table mean."""
        text = "Mean ± standard deviation (ddof = 1) over n seeds; accuracies in per cent."
        if self.baseline:
            text += (
                f" Differences are paired by seed, with {CONFIDENCE:.0%} confidence intervals"
                " (Student t), not corrected for several comparisons."
            )
        return text


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cl.compare", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="run folders, or folders above them")
    parser.add_argument("--by", default="strategy", help="keys to group by, such as strategy.rank")
    parser.add_argument("--metric", default="average_accuracy", help="a number of summary.json")
    parser.add_argument("--baseline", help="the group that the others are compared with")
    parser.add_argument("--out", type=Path, help="folder for tables and plots")
    parser.add_argument("--allow", default="", help="keys in which averaged runs may differ")
    given = parser.parse_args(argv)
    try:
        compared = compare(
            given.folders, given.by.split(","), given.metric, given.baseline, given.allow.split(",")
        )
        show_on_console(compared)
        if given.out:
            write(compared, given.out)
            print(f"Tables and plots are in {given.out}")
    except (PalimpsestError, OSError) as error:
        sys.exit(f"error: {error}")
    if compared.left_out:
        sys.exit(f"error: {len(compared.left_out)} left out, as they cannot be read (see above).")


def compare(
    folders: Sequence[Path],
    by: Sequence[str] = ("strategy",),
    metric: str = "average_accuracy",
    baseline: str | None = None,
    allow: Sequence[str] = (),
) -> Comparison:
    """Read, check and group the runs; PalimpsestError when they cannot be compared.

    A run that cannot be read is named and left out.
    """
    found = find_runs(folders)
    for folder in sorted(found.incomplete):
        print(f"left out, not complete: {folder}", file=sys.stderr)
    runs = list(found.complete.values())
    left_out = found.damaged | _without_numbers(runs, metric)
    for reason in left_out.values():
        print(f"left out: {reason}", file=sys.stderr)
    runs = [run for run in runs if run.folder not in left_out]
    require(bool(runs), f"There is no complete run in {', '.join(map(str, folders))}.")
    groups = group_runs(runs, by)
    check_comparable(groups, by, [key for key in allow if key])
    sign = -1 if metric.endswith(LOWER) else 1
    groups.sort(key=lambda group: -sign * np.nan_to_num(np.mean(group.values(metric))))
    names = {group.name: group for group in groups}
    require(
        baseline is None or baseline in names,
        f"--baseline {baseline}: there is no such group. {suggest(baseline or '', names)}",
    )
    return Comparison(tuple(groups), metric, names[baseline] if baseline else None, left_out)


def _without_numbers(runs: Sequence[Run], metric: str) -> dict[Path, str]:
    """The runs whose summary lacks a number of the table, and what is wrong with each.

    Raises ConfigurationError when no run has the metric, as it is then not the runs' fault.
    """
    bad: dict[Path, str] = {}
    for run in runs:
        try:
            for key in (metric, *METRICS, *COSTS):
                value = lookup(run.summary, key)
                require(value is None or abs(value) < LARGEST, f"{key} is {value}, no number.")
                require(key not in COSTS or (value or 0) >= 0, f"{key} is {value}, less than 0.")
        except ConfigurationError as error:
            bad[run.folder] = f"{run.folder}: {error}"
    if len(bad) == len(runs):
        for run in runs:
            lookup(run.summary, metric)
    return bad


def _measured(runs: Sequence[Run]) -> list[str]:
    """What the metrics of all the runs gave, as keys of their summaries."""
    names: list[str] = []
    for run in runs:
        numbers = run.summary.get("metrics")
        numbers = numbers if isinstance(numbers, dict) else {}
        usable = [f"metrics.{name}" for name, value in numbers.items() if _is_usable(value)]
        names = [name for name in names or usable if name in usable]
        if not names:
            return []
    return names


def _is_usable(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and abs(value) < LARGEST)  # type: ignore[arg-type]


def write(compared: Comparison, folder: Path) -> None:
    """comparison.md, .csv and .tex; curves, forgetting and cost as .png and .pdf."""
    folder.mkdir(parents=True, exist_ok=True)
    # Another process may write there too: each file comes to its place when it is whole.
    with TemporaryDirectory(prefix=".partial-", dir=folder) as beside:
        _write(compared, Path(beside))
        for file in sorted(Path(beside).iterdir()):
            file.replace(folder / file.name)


def _write(compared: Comparison, folder: Path) -> None:
    for name, text in (
        ("comparison.md", to_markdown(compared)),
        ("comparison.csv", to_csv(compared)),
        ("comparison.tex", to_latex(compared)),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    groups = compared.groups
    lengths = {len(run.accuracy) for group in groups for run in group.runs}
    if len(lengths) == 1:
        means = {group.name: np.stack([run.means() for run in group.runs]) for group in groups}
        plots.save(plots.bands(means, "mean accuracy over the tasks seen (%)"), folder / "curves")
    if lengths != {1}:
        learnt = _points(groups, "learning_accuracy", "forgetting", 100, 100)
        figure = plots.scatter(learnt, "learning accuracy (%)", "forgetting (%)")
        plots.save(figure, folder / "forgetting")
    scale, _ = unit(compared.metric)
    cost = _points(groups, "seconds", compared.metric, 1, scale)
    label = column_name(compared.metric) + (" (%)" if scale == 100 else "")
    figure = plots.scatter(cost, "seconds", label, logarithmic=True)
    plots.save(figure, folder / "cost")


def show_on_console(compared: Comparison) -> None:
    """The table, wide enough that no number is broken."""
    header, rows = compared.table()
    table = Table(caption=compared.caption, caption_justify="left")
    for index, name in enumerate(header):
        table.add_column(escape(name), justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    if not console.is_terminal:
        console = Console(
            width=max(80, 4 + sum(_width(c) for c in zip(header, *rows, strict=True)))
        )
    console.print(table)


def to_markdown(compared: Comparison) -> str:
    """A table with its caption."""
    header, rows = compared.table()
    lines = [
        [text.replace("\\", "\\\\").replace("|", "\\|") for text in row] for row in [header, *rows]
    ]
    text = [f"| {' | '.join(row)} |" for row in lines]
    text.insert(1, f"|{'|'.join([':--'] + ['--:'] * (len(header) - 1))}|")
    return "\n".join([*text, "", compared.caption, ""])


def to_csv(compared: Comparison) -> str:
    """One line per group; numbers as they are, shares and not per cent."""
    text = io.StringIO()
    names = ["group", "n", "seeds"]
    names += [f"{key}_{part}" for key in compared.columns for part in ("mean", "std")]
    if compared.baseline:
        names += ["baseline", "difference", "confidence_low", "confidence_high", "pairs"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for group in compared.groups:
        row: list[object] = [cell(group.name), len(group.runs), " ".join(map(str, group.seeds))]
        for key in compared.columns:
            found = Statistic.of(group.values(key))
            row += [_number(found.mean), _number(found.deviation)]
        if compared.baseline:
            paired = Difference.between(group, compared.baseline, compared.metric)
            low, high = paired.mean - paired.half_width, paired.mean + paired.half_width
            row += [cell(compared.baseline.name), *map(_number, (paired.mean, low, high)), paired.n]
        writer.writerow(row)
    return text.getvalue()


def to_latex(compared: Comparison) -> str:
    """A booktabs table, best mean of the chosen metric in bold."""
    header, rows = compared.table()
    rows = [[_latex(cell) for cell in row] for row in rows]
    rows[0][2] = f"\\textbf{{{rows[0][2]}}}"
    body = "\n".join(f"  {' & '.join(row)} \\\\" for row in rows)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_latex(compared.caption)}}}\n"
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n\\toprule\n"
        f"  {' & '.join(_latex(name) for name in header)} \\\\\n\\midrule\n{body}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def column_name(key: str) -> str:
    """A metric as it is called in a header."""
    return key.replace("_", " ").replace(".", ": ")


def unit(key: str) -> tuple[float, int]:
    """The factor and the digits that a metric is shown with."""
    if key.startswith("metrics."):
        return 1, 4
    if key.rpartition(".")[2] in COSTS or key.endswith("bytes"):
        return 1, 1 if key == "seconds" else 0
    return 100, 2


def show(found: Statistic, key: str) -> str:
    """Mean ± deviation, in the unit of the metric."""
    scale, digits = unit(key)
    if not found.n:
        return "–"
    mean = f"{scale * found.mean:,.{digits}f}"
    if math.isnan(found.deviation) or (key in COSTS[1:] and found.deviation == 0):
        return mean
    return f"{mean} ± {scale * found.deviation:,.{digits}f}"


def _points(
    groups: Sequence[Group], x: str, y: str, x_scale: float, y_scale: float
) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    return {
        group.name: np.stack([x_scale * group.values(x), y_scale * group.values(y)], axis=1)
        for group in groups
    }


def _width(column: Sequence[str]) -> int:
    return 3 + max(len(cell) for cell in column)


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _latex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"}
    special |= {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    special |= {"−": "$-$", "±": "$\\pm$", "–": "--", "<": "$<$", ">": "$>$"}
    return "".join(special.get(character, character) for character in text)


if __name__ == "__main__":
    main()
