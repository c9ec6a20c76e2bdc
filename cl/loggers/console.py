"""What a person sees while a run works, and its table at the end."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cl.loggers.base import ExperienceResult, Logger, RunInfo
from cl.loggers.estimate import StepEstimate
from cl.metrics import Matrix
from cl.names import shown
from cl.report.runs import measured

WIDE = 12
"""The matrix is printed in full up to this many tasks."""

PLAIN_SECONDS = 60.0
"""Between two lines of progress where there is no terminal for a bar, such as in the log of a cluster."""


class ConsoleLogger(Logger):
    """Progress with an estimate, a line per experience, the matrix and the summary at the end.

    The same lines, without the progress, go to log.txt in the run folder. quiet: they go only there.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
            speed_estimate_period=300,
        )

    def start(self, run: RunInfo) -> None:
        self.run = run
        self.log = (run.folder / "log.txt").open("a", encoding="utf-8")
        self.written = Console(file=self.log, width=110)
        names = run.names
        self.say(
            f"[bold]{escape(names['strategy'])}[/] on [bold]{escape(names['stream'])}[/], "
            f"{run.experiences} experiences · backbone {escape(names['backbone'])} · "
            f"seed {run.config['seed']}"
        )
        if run.stream.about:
            self.say(escape(run.stream.about))
        self.say(f"pretrained: {escape(run.pretrained)}")
        if run.pretrained == "random":
            self.say("[yellow]The backbone starts at random: accuracies say little.[/]")
        self.told = time.monotonic()
        self.first: tuple[float, int] | None = None
        self.trained = False
        lengths = [len(data) for data in run.stream.train]
        self.estimate = StepEstimate(lengths, run.trainable_steps)
        self.task: TaskID = self.progress.add_task("", total=run.trainable_steps or None, speed="")
        if run.trainable_steps:
            self.progress.start()

    def step(self, values: dict[str, float]) -> None:
        done = int(values["total_steps"])
        before = done - int(values["step"])
        self.estimate.update(int(values["experience"]), int(values["steps"]), before)
        total, self.trained = self.estimate.total, True
        epochs = int(self.run.config.get("trainer", {}).get("epochs", 1))
        epoch = math.ceil(epochs * values["step"] / values["steps"])
        where = (
            f"task {int(values['experience']) + 1}/{self.run.experiences}  epoch {epoch}/{epochs}"
        )
        speed = f"{values['images_per_second']:,.0f} images/s"
        self.progress.update(self.task, completed=done, total=total, description=where, speed=speed)
        now = time.monotonic()
        start, first = self.first = self.first or (now, done)  # of a resumed run it is not 1
        if self.progress.disable and now - self.told >= PLAIN_SECONDS and done > first:
            self.told = now
            left = (now - start) / (done - first) * (total - done)
            line = f"{where}  {done / max(1, total):.0%}  {speed}  about {duration(left)} left"
            self.console.print(line, highlight=False, soft_wrap=True)

    def experience(self, result: ExperienceResult) -> None:
        if not self.trained:  # the estimate must know of an experience without training
            self.estimate.update(result.index, 0, result.total_steps)
            self.progress.update(self.task, total=self.estimate.total or None)
        self.trained = False
        row = result.accuracy[result.index, : result.index + 1]
        classes = ", ".join(result.classes[:5]) + (" …" if len(result.classes) > 5 else "")
        seconds = result.training_seconds + result.evaluation_seconds
        self.say(
            f"task {result.index + 1:>3}/{self.run.experiences}  "
            f"learnt {row[-1]:6.1%}  average of tasks seen {row.mean():6.1%}  "
            f"{seconds:6.1f} s  [dim]{escape(classes)}[/]"
        )
        self.matrix = result.accuracy

    def finish(self, summary: dict[str, Any]) -> None:
        self.progress.stop()
        if hasattr(self, "matrix") and len(self.matrix) <= WIDE:
            self.say(matrix_table(self.matrix))
        self.say(summary_table(summary))
        self.say(f"Everything is in {escape(str(self.run.folder))}")

    def close(self) -> None:
        self.progress.stop()
        if hasattr(self, "log"):
            self.log.close()

    def say(self, content: Any) -> None:
        """To the console and to log.txt."""
        content = shown(content) if isinstance(content, str) else content
        self.console.print(content, highlight=False, soft_wrap=isinstance(content, str))
        self.written.print(content, highlight=False, soft_wrap=isinstance(content, str))


def matrix_table(R: Matrix) -> Table:
    """R in per cent: a row per experience, a column per task."""
    table = Table(title="accuracy in % on each task, after each experience", min_width=44)
    table.add_column("after", justify="right")
    for task in range(len(R)):
        table.add_column(f"task {task + 1}", justify="right")
    for index, row in enumerate(R):
        table.add_row(str(index + 1), *(_cell(value) for value in row))
    return table


def _cell(accuracy: float) -> Text:
    """In per cent, on a shade that is darker the higher it is."""
    from cl.report.plots import is_dark, shade  # matplotlib is for the end of a run

    if np.isnan(accuracy):
        return Text("")
    colour = shade(accuracy)
    letters = "white" if is_dark(colour) else "black"
    return Text(f"{100 * accuracy:.1f}", style=f"{letters} on rgb({','.join(map(str, colour))})")


def duration(seconds: float) -> str:
    """A time to come, as a person would say it: "40 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def summary_table(summary: dict[str, Any]) -> Table:
    """The figures of summary.json that a person wants first."""
    table = Table(show_header=False)
    for key in (
        "average_accuracy",
        "average_incremental_accuracy",
        "forgetting",
        "backward_transfer",
        "learning_accuracy",
    ):
        value = summary[key]
        shown = "undefined" if value is None else f"{100 * value:.2f} %"
        table.add_row(key.replace("_", " "), shown)
    for name, shown_value in measured(summary):
        table.add_row(Text(name), Text(shown_value))
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    table.add_row("trainable parameters", f"{summary['trainable_parameters']:,}")
    table.add_row("stored numbers", f"{summary['stored_numbers']:,}")
    memory = summary["peak_memory_bytes"]
    table.add_row("peak memory", "unknown" if memory is None else f"{memory / 2**20:,.0f} MiB")
    table.add_row("pretrained", str(summary["pretrained"]))
    return table
