"""Whether the summary of a run fits the run's other files, which say the same in other words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl.errors import DataError
from cl.matrix import AccuracyMatrix
from cl.metrics import Matrix, summarise
from cl.stored import fields, load_json

FIGURES = (
    *("average_accuracy", "average_incremental_accuracy", "learning_accuracy"),
    *("forgetting", "backward_transfer"),
)
"""What the matrix tells. `forward_transfer` needs the number of classes, too."""

KINDS = {"names": dict, "seed": int, "date": str}
OPTIONAL = {
    **{"run": str | None, "pretrained": str | None, "changes": list, "within_task": dict},
    **{"stream_fingerprint": str | None, "stream_contents": str | None},
    **dict.fromkeys((*FIGURES, "forward_transfer"), int | float | None),
    **{"seconds": int | float, "trainable_parameters": int, "stored_numbers": int},
}
CHANGE = {"key": str, "experience": int, "step": int}


def read_summary(folder: Path, config: Mapping[str, Any], matrix: AccuracyMatrix) -> dict[str, Any]:
    """The content of `folder`/summary.json; DataError where it says another thing than the files beside it.

    Those tell the names, the seed, the id of the run and the accuracies; the costs, the machine and the date
    stand in the summary alone.
    """
    file = folder / "summary.json"
    content = load_json(file)
    summary = fields(content, file, KINDS)
    fields(summary, file, {key: kind for key, kind in OPTIONAL.items() if key in summary})
    for change in summary.get("changes", ()):
        fields(change, f"{file}: changes", CHANGE)
    _compare(file, summary, "seed", config.get("seed", summary["seed"]), "config.yaml")
    names = config.get("names")
    told = summary["names"] if names is None else {str(k): str(v) for k, v in names.items()}
    _compare(file, summary, "names", told, "config.yaml")
    if summary.get("run") is not None and (folder / "run.json").exists():
        identity = fields(load_json(folder / "run.json"), folder / "run.json", {"id": str})
        _compare(file, summary, "run", identity["id"], "run.json")
    _check_figures(file, summary, matrix.values())
    _check_figures(file, summary.get("within_task", {}), matrix.values(within_task=True))
    return summary


def _compare(file: Path, summary: Mapping[str, Any], key: str, told: Any, where: str) -> None:
    if summary[key] != told:
        raise DataError(
            f"{file} is damaged, or {where} is: {key} is {str(summary[key])[:60]} here, and "
            f"{str(told)[:60]} there."
        )


def _check_figures(file: Path, figures: Mapping[str, Any], R: Matrix) -> None:
    told = summarise(R)
    # Where nothing is learnt in a sequence, there is no forgetting to speak of.
    without = (
        FIGURES[3:] if figures.get("forgetting") is figures.get("backward_transfer") is None else ()
    )
    for key in (key for key in FIGURES if key in figures and key not in without):
        value, expected = figures[key], told[key]
        if None in (value, expected):
            right = value is expected
        else:
            right = math.isclose(value, expected, abs_tol=1e-9)
        if not right:
            raise DataError(
                f"{file} is damaged, or accuracy_matrix.csv is: {key} is {str(value)[:40]}, and the matrix "
                f"tells {expected}."
            )
