"""What docs/speed.md says: the claims of the speed programs, as their last full runs found them.

    python benchmarks/speed_page.py

writes the part of the page between its two markers from the JSON files in benchmarks/results, and copies the
plot of growth.py beside it. A program that has not run in full is listed without figures.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.results_page import RESULTS, ROOT, circumstances, update_document

DOCUMENT = ROOT / "docs" / "speed.md"
PLOT = RESULTS / "growth.png"
PROGRAMS = (
    "loop",
    "avalanche_loop",
    "gradient_free",
    "evaluation",
    "fisher",
    "growth",
    "checkpoint_cost",
    "wandb_cost",
    "startup",
)

Found = dict[str, Any]


def main() -> None:
    """Write the page."""
    if PLOT.exists():
        shutil.copy(PLOT, DOCUMENT.with_name(PLOT.name))
    update_document(DOCUMENT, generated([load(name) for name in PROGRAMS]))


def load(name: str) -> Found:
    """What a program wrote, or its name alone."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {"program": name, "claims": []}


def generated(programs: list[Found]) -> str:
    """The part of the page that follows from the files."""
    return "\n".join(["## Claims", "", *table(programs), ""])


def table(programs: list[Found]) -> list[str]:
    """A row per claim."""
    rows = [["program", "claim", "found", "target", "met", "measured"], ["---"] * 6]
    for found in programs:
        name = f"`{found['program']}`"
        for claim in found["claims"]:
            rows.append([name, claim["text"], *outcome(claim), conditions(found, claim)])
        if not found["claims"]:
            rows.append([name, *[""] * 4, conditions(found)])
    return [f"| {' | '.join(row)} |" for row in rows]


def outcome(claim: Found) -> list[str]:
    """Value, target and verdict of a claim."""
    value = f"{claim['value']:.3g}"
    if claim["target"] is None:
        return [value, "", ""]
    sign = "≥" if claim["at_least"] else "≤"
    return [value, f"{sign} {claim['target']:g}", "yes" if claim["met"] else "no"]


def conditions(found: Found, claim: Found | None = None) -> str:
    """Rounds, hardware and date of a program, or of one of its claims."""
    if not found["claims"]:
        return "not yet"
    return circumstances(found, (claim or {}).get("rounds") or found["repetitions"])


if __name__ == "__main__":
    main()
