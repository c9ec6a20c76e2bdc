"""Fill a table of results run by run, and go on where it stopped.

    python benchmarks/results.py digits --stream stream=split_digits \
        --backbone backbone=vit_tiny backbone.image_size=64 \
        --strategies naive ewc olora simplecil --seeds 0 1 2

Each cell is one run of `run.py` in its own process. Its summary goes into benchmarks/results/<name>.json;
a cell that is there is not run again, a cell that failed is empty. The table (mean ± standard deviation over
seeds, ddof = 1) is printed and written to benchmarks/results/<name>.md, with hardware and date.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KEPT = (
    "seed",
    "average_accuracy",
    "average_incremental_accuracy",
    "forgetting",
    "learning_accuracy",
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
COLUMNS = {
    "average_accuracy": "average accuracy",
    "average_incremental_accuracy": "average incremental accuracy",
    "forgetting": "forgetting",
    "learning_accuracy": "learning accuracy",
}

Cell = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument(
        "--stream", nargs="+", required=True, help="overrides that choose the stream"
    )
    parser.add_argument("--backbone", nargs="+", required=True, help="overrides for the backbone")
    parser.add_argument("--strategies", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    file = ROOT / "benchmarks" / "results" / f"{arguments.name}.json"
    cells: list[Cell] = json.loads(file.read_text()) if file.exists() else []
    for seed in arguments.seeds:
        for strategy in arguments.strategies:
            key = {
                "strategy": strategy,
                "overrides": [*arguments.stream, *arguments.backbone],
                "seed": seed,
            }
            if any(key.items() <= cell.items() for cell in cells):
                continue
            summary = run(strategy, key["overrides"], seed)
            if summary is not None:
                cells.append(key | {name: summary[name] for name in KEPT})
                file.write_text(json.dumps(cells, indent=1, ensure_ascii=False) + "\n")
    text = markdown(cells)
    file.with_suffix(".md").write_text(text)
    print(text)


def run(strategy: str, overrides: list[str], seed: int) -> Cell | None:
    """The summary of one run, or None if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run.py"), f"strategy={strategy}", *overrides]
        command += [f"seed={seed}", f"output={folder}", "trainer.checkpoint=false"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            print(f"{strategy}, seed {seed}: {result.stderr.strip()[-500:]}", file=sys.stderr)
            return None
        (summary,) = Path(folder).rglob("summary.json")
        print(f"{strategy}, seed {seed}: done", file=sys.stderr)
        return dict(json.loads(summary.read_text()))


def markdown(cells: list[Cell]) -> str:
    """A table per stream and backbone: a row per strategy."""
    lines: list[str] = []
    for overrides in dict.fromkeys(tuple(cell["overrides"]) for cell in cells):
        mine = [cell for cell in cells if tuple(cell["overrides"]) == overrides]
        dates = sorted(cell["date"][:10] for cell in mine)
        hardware = mine[0]["hardware"]
        lines += [
            f"`{' '.join(overrides)}` · pretrained: {mine[0]['pretrained']} · "
            f"{hardware['device']} ({hardware['cpu']}, {hardware['threads']} threads) · {dates[-1]}",
            "",
            f"| strategy | seeds | {' | '.join(COLUMNS.values())} | seconds |",
            "|---|---|" + "---|" * (len(COLUMNS) + 1),
        ]
        for strategy in dict.fromkeys(cell["strategy"] for cell in mine):
            runs = [cell for cell in mine if cell["strategy"] == strategy]
            values = " | ".join(spread([cell[name] for cell in runs]) for name in COLUMNS)
            seeds = ", ".join(str(cell["seed"]) for cell in runs)
            seconds = mean(cell["seconds"] for cell in runs)
            lines.append(f"| `{strategy}` | {seeds} | {values} | {seconds:.0f} |")
        lines.append("")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation (ddof = 1), in per cent."""
    text = f"{100 * mean(values):.1f}"
    return f"{text} ± {100 * stdev(values):.1f}" if len(values) > 1 else text


if __name__ == "__main__":
    main()
