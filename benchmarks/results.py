"""Fill a table of results run by run, and go on where it stopped.

    CL_DATA_DIR=… CL_WEIGHTS_DIR=… python benchmarks/results.py cifar100_nano
    CL_DATA_DIR=… CL_WEIGHTS_DIR=… python benchmarks/results.py cifar100_vit_tiny

fill the two tables of docs/results.md: all strategies on a fixed part of CIFAR-100. With --stream,
--backbone, --strategies and --seeds a table of any other name can be filled:

    python benchmarks/results.py digits --stream stream=split_digits \
        --backbone backbone=vit_tiny backbone.image_size=64 \
        --strategies naive ewc olora simplecil --seeds 0 1 2

Each cell is one run of `run.py` in its own process. Its summary goes into benchmarks/results/<name>.json;
a cell that is there is not run again, a cell that failed is empty. After each cell the table (mean ±
standard deviation over seeds, ddof = 1) is written to benchmarks/results/<name>.md, and docs/results.md
between its two markers; what stands outside the markers is written by hand and left alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.results_page import (
    RESULTS,
    ROOT,
    TABLES,
    Cell,
    Table,
    load,
    markdown,
    strategies,
    write_document,
)

KEPT = (
    "seed",
    "average_accuracy",
    "average_incremental_accuracy",
    "forgetting",
    "learning_accuracy",
    "within_task_accuracy",
    "seconds",
    "trainable_parameters",
    "stored_numbers",
    "pretrained",
    "stream_fingerprint",
    "date",
    "hardware",
    "versions",
    "git_revision",
)
COSTS = ("training_seconds", "evaluation_seconds", "steps")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", nargs="?", help=f"{' or '.join(TABLES)}, or a name of your own")
    parser.add_argument("--stream", nargs="+", help="overrides that choose the stream")
    parser.add_argument("--backbone", nargs="+", help="overrides for the backbone")
    parser.add_argument("--strategies", nargs="+", default=strategies())
    parser.add_argument("--seeds", nargs="+", type=int)
    given = parser.parse_args()
    if given.name:
        known = TABLES.get(given.name) or Table((), (), (0,))
        table = Table(
            tuple(given.stream or known.stream),
            tuple(given.backbone or known.backbone),
            tuple(given.seeds or known.seeds),
        )
        if not (table.stream and table.backbone):
            parser.error(f"{given.name}: give --stream and --backbone, or take {', '.join(TABLES)}")
        fill(RESULTS / f"{given.name}.json", table, given.strategies)
    write_document()


def fill(file: Path, table: Table, names: list[str]) -> None:
    """Run the cells that are missing, seed by seed, and write each as soon as it is there.

    The file is read again each time: another process may be at work on other seeds.
    """
    for seed in table.seeds:
        for name in names:
            key = {"strategy": name, "overrides": table.overrides, "seed": seed}
            if any(key.items() <= cell.items() for cell in load(file)):
                continue
            summary = run(name, table.overrides, seed)
            if summary is not None:
                kept = {each: summary[each] for each in (*KEPT, *COSTS) if each in summary}
                store(file, [*load(file), key | kept])
                write_document()
    print(markdown(load(file)))


def store(file: Path, cells: list[Cell]) -> None:
    """Write the cells and their table; an earlier file is replaced when the new one is complete."""
    beside = file.with_suffix(".partial")
    beside.write_text(json.dumps(cells, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(file)
    file.with_suffix(".md").write_text(markdown(cells), encoding="utf-8")


def run(strategy: str, overrides: list[str], seed: int) -> Cell | None:
    """The summary of one run with its costs, or None if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run.py"), f"strategy={strategy}", *overrides]
        command += [f"seed={seed}", f"output={folder}", "trainer.checkpoint=false"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            print(f"{strategy}, seed {seed}: {result.stderr.strip()[-500:]}", file=sys.stderr)
            return None
        (summary,) = Path(folder).rglob("summary.json")
        print(f"{strategy}, seed {seed}: done", file=sys.stderr)
        events = [json.loads(line) for line in (summary.parent / "metrics.jsonl").open()]
        found: Cell = json.loads(summary.read_text())
        within = {"within_task_accuracy": found["within_task"]["average_accuracy"]}
        return found | within | costs(events)


def costs(events: list[dict[str, Any]]) -> Cell:
    """Seconds of training and of evaluation, and steps of the optimiser, of a whole run."""
    experiences = [event for event in events if event["event"] == "experience"]
    steps = [int(event["total_steps"]) for event in events if event["event"] == "step"]
    return {
        "training_seconds": sum(event["training_seconds"] for event in experiences),
        "evaluation_seconds": sum(event["evaluation_seconds"] for event in experiences),
        "steps": max(steps, default=0),
    }


if __name__ == "__main__":
    main()
