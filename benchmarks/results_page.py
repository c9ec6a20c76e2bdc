"""What the table of results says: the tables, their texts, and the page docs/results.md."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "results.md"
PUBLISHED = ROOT / "benchmarks" / "published.json"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
STEP_COST = RESULTS / "step_cost.json"
STEP = re.compile(r"(time|passes) per step over naive's, (\w+)")
LEFT_OUT = ("avalanche", "custom")
"""Configurations that stand for several methods, or for none."""

COLUMNS = {
    "average_accuracy": "average accuracy",
    "average_incremental_accuracy": "average incremental accuracy",
    "forgetting": "forgetting",
    "learning_accuracy": "learning accuracy",
    "within_task_accuracy": "accuracy within the task",
}

Cell = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """What a cell is run with, besides its strategy and seed, and how the table is introduced."""

    stream: tuple[str, ...]
    backbone: tuple[str, ...]
    seeds: tuple[int, ...]
    title: str = ""
    text: str = ""
    steps: bool = False
    """Whether `step_cost.py` times this backbone: its two columns then stand in the table."""

    @property
    def overrides(self) -> list[str]:
        """As the command line takes them."""
        return [*self.stream, *self.backbone]


def part_of_cifar(training: int, test: int) -> tuple[str, ...]:
    """Ten tasks of the first images of each class; one pass, in batches of 16, on one core."""
    return (
        "stream._target_=benchmarks.subset.cifar100",
        f"stream.training={training}",
        f"stream.test={test}",
        "trainer.epochs=1",
        "trainer.batch_size=16",
        "trainer.device=cpu",
    )


TABLES = {
    "cifar100_nano": Table(
        part_of_cifar(100, 20),
        ("backbone=nano",),
        (0, 1, 2),
        "`nano`, 32 pixels",
        "The first 100 training and the first 20 test images of each class of CIFAR-100.",
        steps=True,
    ),
    "cifar100_vit_tiny": Table(
        part_of_cifar(50, 20),
        ("backbone=vit_tiny", "backbone.image_size=96"),
        (0,),
        "`vit_tiny`, 96 pixels",
        "The first 50 training and the first 20 test images of each class of CIFAR-100.",
    ),
}


def strategies() -> list[str]:
    """All that have a configuration, the bounds of the table first."""
    found = {f.stem for f in (ROOT / "configs" / "strategy").glob("*.yaml")} - set(LEFT_OUT)
    first = [name for name in ("naive", "simplecil") if name in found]
    return first + sorted(found - set(first))


def markdown(cells: list[Cell]) -> str:
    """A table per stream and backbone: a row per strategy."""
    lines: list[str] = []
    for overrides in dict.fromkeys(tuple(cell["overrides"]) for cell in cells):
        mine = [cell for cell in cells if tuple(cell["overrides"]) == overrides]
        lines += [
            f"`{' '.join(overrides)}` · {conditions(mine)}",
            "",
            f"| strategy | seeds | {' | '.join(COLUMNS.values())} | seconds |",
            "|---|---|" + "---|" * (len(COLUMNS) + 1),
        ]
        for strategy in dict.fromkeys(cell["strategy"] for cell in mine):
            runs = [cell for cell in mine if cell["strategy"] == strategy]
            values = " | ".join(
                spread([cell[name] for cell in runs if name in cell]) for name in COLUMNS
            )
            seeds = ", ".join(str(cell["seed"]) for cell in runs)
            seconds = mean(cell["seconds"] for cell in runs)
            lines.append(f"| `{strategy}` | {seeds} | {values} | {seconds:.0f} |")
        lines.append("")
    return "\n".join(lines)


def conditions(cells: list[Cell]) -> str:
    """What the runs ran on, and when."""
    machines = dict.fromkeys(machine(cell) for cell in cells)
    dates = sorted(cell["date"][:10] for cell in cells)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return f"pretrained: {cells[0]['pretrained']} · {', '.join(machines)} · {when}"


def machine(found: Cell) -> str:
    """The device that something was measured on."""
    return "{device} ({cpu}, {threads} threads)".format(**found["hardware"])


def circumstances(found: Cell, rounds: int) -> str:
    """Rounds, hardware and date of what a speed program found."""
    many = "1 round" if rounds == 1 else f"{rounds} rounds"
    return f"{many}, {machine(found)}, {found['date'][:10]}"


def spread(values: list[float | None]) -> str:
    """Mean ± standard deviation (ddof = 1), in per cent; empty without values, – if they are undefined."""
    known = [value for value in values if value is not None]
    if not known:
        return "–" if values else ""
    text = f"{100 * mean(known):.1f}"
    return f"{text} ± {100 * stdev(known):.1f}" if len(known) > 1 else text


def load(file: Path) -> list[Cell]:
    """The cells that a file holds; none if there is no file."""
    return list(json.loads(file.read_text())) if file.exists() else []


def write_document() -> None:
    """Bring docs/results.md up to date with the stored cells."""
    published, steps = json.loads(PUBLISHED.read_text()), json.loads(STEP_COST.read_text())
    update_document(DOCUMENT, generated(load_tables(), published, steps))


def load_tables() -> dict[str, list[Cell]]:
    """The cells of the tables of the document, by name."""
    return {name: load(RESULTS / f"{name}.json") for name in TABLES}


def generated(
    tables: dict[str, list[Cell]], published: dict[str, Any], steps: dict[str, Any]
) -> str:
    """The part of the document that follows from the stored cells and the times of the steps."""
    lines: list[str] = []
    costs = step_costs(steps["claims"])
    for name, cells in tables.items():
        table = TABLES[name]
        cells = [cell for cell in cells if cell["overrides"] == table.overrides]
        lines += [f"## {table.title}", "", f"{table.text} `{' '.join(table.overrides)}`", ""]
        lines += [conditions(cells) if cells else "No cell has run yet.", ""]
        if table.steps:
            when = circumstances(steps, steps["repetitions"])
            lines += [f"Time and passes per step: `benchmarks/step_cost.py`, {when}.", ""]
        lines += [*results_table(cells, published["figures"], costs if table.steps else {}), ""]
    lines += ["## Published figures", "", *published_table(published["figures"]), ""]
    lines += ["## Order", "", *orders_table(tables, published["orders"]), ""]
    return "\n".join(lines)


def step_costs(claims: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each strategy "time" and "passes" of a step, both over naive fine-tuning's."""
    found: dict[str, dict[str, float]] = {}
    for claim in claims:
        match = STEP.fullmatch(claim["text"])
        assert match is not None, claim["text"]
        found.setdefault(match[2], {})[match[1]] = claim["value"]
    return found


def results_table(
    cells: list[Cell], figures: list[dict[str, Any]], costs: dict[str, dict[str, float]]
) -> list[str]:
    """A row per strategy: measured figures, costs, and beside them the published one."""
    header = ["strategy", "seeds", *COLUMNS.values(), "trainable parameters", "stored numbers"]
    header += ["training s", "evaluation s"]
    header += ["time per step ÷ naive", "passes per step ÷ naive"] if costs else []
    header += ["published: last", "average", "backbone", "protocol"]
    rows = [header, ["---"] * len(header)]
    for name in strategies():
        runs = [cell for cell in cells if cell["strategy"] == name]
        figure = closest(name, figures)
        steps = per_step(costs.get(name, {})) if costs else []
        rows.append([f"`{name}`", *measured(runs), *steps, *beside(figure)])
    return [f"| {' | '.join(row)} |" for row in rows]


def measured(runs: list[Cell]) -> list[str]:
    """The cells of a row; empty ones if nothing has run."""
    if not runs:
        return [""] * (len(COLUMNS) + 5)
    shown = [", ".join(str(cell["seed"]) for cell in runs)]
    shown += [spread([cell[name] for cell in runs if name in cell]) for name in COLUMNS]
    shown += [
        f"{mean(cell[n] for cell in runs):,.0f}" for n in ("trainable_parameters", "stored_numbers")
    ]
    return shown + [
        f"{mean(cell[n] for cell in runs):.0f}" for n in ("training_seconds", "evaluation_seconds")
    ]


def per_step(cost: dict[str, float]) -> list[str]:
    """Time and passes of a step; – for a method that took none where they were measured."""
    return [f"{cost[name]:.2f}" if cost else "–" for name in ("time", "passes")]


def closest(strategy: str, figures: list[dict[str, Any]]) -> dict[str, Any]:
    """The published figure of a strategy, of ten tasks if there is one; an empty one if there is none."""
    mine = [figure for figure in figures if figure["strategy"] == strategy]
    return min(mine, key=lambda figure: "10 tasks" not in figure["protocol"], default={})


def beside(figure: dict[str, Any]) -> list[str]:
    """What is shown of a published figure."""
    return [
        number(figure.get("average_accuracy")),
        number(figure.get("average_incremental_accuracy")),
        figure.get("backbone", ""),
        figure.get("protocol", ""),
    ]


def number(value: float | None) -> str:
    """A percentage as it was published, or nothing."""
    return "" if value is None else f"{value:g}"


def published_table(figures: list[dict[str, Any]]) -> list[str]:
    """All figures that were found, with their sources."""
    header = ["strategy", "last", "average", "backbone", "protocol", "source"]
    rows = [header, ["---"] * len(header)]
    for figure in figures:
        rows.append([f"`{figure['strategy']}`", *beside(figure), figure["source"]])
    return [f"| {' | '.join(row)} |" for row in rows]


def orders_table(tables: dict[str, list[Cell]], orders: list[dict[str, str]]) -> list[str]:
    """For each pair whose order is published: whether it is seen here, by average accuracy."""
    header = ["reported", "source", *(TABLES[name].title for name in tables)]
    rows = [header, ["---"] * len(header)]
    for order in orders:
        pair = (order["lower"], order["higher"])
        seen = [compared(cells, *pair) for cells in tables.values()]
        rows.append([f"`{pair[0]}` < `{pair[1]}`", order["source"], *seen])
    return [f"| {' | '.join(row)} |" for row in rows]


def compared(cells: list[Cell], lower: str, higher: str) -> str:
    """Whether `higher` is higher, by how much in the mean, and in how many of the common seeds."""
    found = {
        name: {c["seed"]: c["average_accuracy"] for c in cells if c["strategy"] == name}
        for name in (lower, higher)
    }
    seeds = found[lower].keys() & found[higher].keys()
    if not seeds:
        return ""
    gaps = [100 * (found[higher][seed] - found[lower][seed]) for seed in seeds]
    wins = sum(gap > 0 for gap in gaps)
    answer = "yes" if wins == len(gaps) else "no" if wins == 0 else "unclear"
    return f"{answer}: {mean(gaps):+.1f} ({wins} of {len(gaps)} seeds)"


def update_document(file: Path, text: str) -> None:
    """Replace what stands between the markers; everything else in the file stays as it is."""
    old = file.read_text(encoding="utf-8") if file.exists() else f"# Results\n\n{BEGIN}\n{END}\n"
    before, marker, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not marker or not end:
        raise SystemExit(f"{file} lacks the markers {BEGIN} and {END}.")
    file.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")
