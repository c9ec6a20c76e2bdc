"""What a person sees while a run works, and its table at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from cl.loggers.base import ExperienceResult, Logger, RunInfo
from cl.metrics import Matrix

WIDE = 12
"""The matrix is printed in full up to this many tasks."""


class ConsoleLogger(Logger):
    """Progress with an estimate, a line per experience, the matrix and the summary at the end.

    The same lines, without the progress bar, go to log.txt in the run folder.
    """

    def __init__(self) -> None:
        self.console = Console()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
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
        self.say(f"pretrained: {escape(run.pretrained)}")
        if run.pretrained == "random":
            self.say("[yellow]The backbone starts at random: accuracies say little.[/]")
        self.task: TaskID = self.progress.add_task(
            "task 1", total=run.trainable_steps or None, speed=""
        )
        self.progress.start()

    def step(self, values: dict[str, float]) -> None:
        done = int(values["total_steps"])
        self.progress.update(
            self.task,
            completed=done,
            description=f"task {int(values['experience']) + 1}/{self.run.experiences}",
            speed=f"{values['images_per_second']:.0f} images/s",
        )

    def experience(self, result: ExperienceResult) -> None:
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
        if len(self.matrix) <= WIDE:
            self.say(matrix_table(self.matrix))
        self.say(summary_table(summary))
        self.say(f"Everything is in {escape(str(self.run.folder))}")

    def close(self) -> None:
        self.progress.stop()
        if hasattr(self, "log"):
            self.log.close()

    def say(self, content: Any) -> None:
        """To the console and to log.txt."""
        self.console.print(content, highlight=False, soft_wrap=isinstance(content, str))
        self.written.print(content, highlight=False, soft_wrap=isinstance(content, str))


def matrix_table(R: Matrix) -> Table:
    """R in per cent: a row per experience, a column per task."""
    table = Table(title="accuracy in % on each task, after each experience")
    table.add_column("after", justify="right")
    for task in range(len(R)):
        table.add_column(f"task {task + 1}", justify="right")
    for index, row in enumerate(R):
        table.add_row(str(index + 1), *("" if np.isnan(v) else f"{100 * v:.1f}" for v in row))
    return table


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
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    table.add_row("trainable parameters", f"{summary['trainable_parameters']:,}")
    table.add_row("stored numbers", f"{summary['stored_numbers']:,}")
    memory = summary["peak_memory_bytes"]
    table.add_row("peak memory", "unknown" if memory is None else f"{memory / 2**20:,.0f} MiB")
    table.add_row("pretrained", str(summary["pretrained"]))
    return table
