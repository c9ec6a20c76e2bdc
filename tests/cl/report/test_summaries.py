"""A summary that contradicts the files beside it is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cl.checkpoint import save_json
from cl.compare import compare
from cl.errors import DataError
from cl.report.page import write_report
from cl.report.runs import Run
from tests.cl.report.folders import make_run


@pytest.mark.parametrize(
    "change",
    [
        {"average_accuracy": 0.75},
        {"average_accuracy": None, "learning_accuracy": 0.0},
        {"forgetting": None},
        {"average_accuracy": None},
        {"forgetting": "0.4"},
        {"forgetting": float("nan")},
        {"within_task": {"average_accuracy": 0.1}},
        {"within_task": []},
        {"seed": 1},
        {"seed": True},
        {"names": {"stream": 3}},
        {"names": {"stream": "toy", "strategy": "other", "backbone": "nano"}},
        {"run": "another"},
        {"seconds": "1"},
        {"stored_numbers": [1]},
        {"changes": [{"key": "trainer.lr"}]},
        {"changes": {}},
        {"date": 2026},
    ],
)
def test_a_summary_that_contradicts_itself_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    names = {"stream": "toy", "strategy": "naive", "backbone": "nano"}
    make_run(tmp_path, "olora", 0, 0.5)
    folder = make_run(tmp_path, "naive", 0, 0.5, config={"names": names}, run="a1")
    save_json({"format": 1, "id": "a1"}, folder / "run.json")
    assert Run.load(folder).summary["run"] == "a1"
    file = folder / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    for read in (Run.load, write_report):
        with pytest.raises(DataError, match=r"summary\.json"):
            read(folder)
    assert [group.name for group in compare([tmp_path]).groups] == ["olora"]
    assert "summary.json" in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["config.yaml", "accuracy_matrix.csv"])
def test_a_run_that_lacks_a_file_is_named(tmp_path: Path, lost: str) -> None:
    make_run(tmp_path, "olora", 0, 0.5)
    folder = make_run(tmp_path, "naive", 0, 0.5)
    (folder / lost).unlink()
    assert list(compare([tmp_path]).left_out) == [folder.resolve()]
