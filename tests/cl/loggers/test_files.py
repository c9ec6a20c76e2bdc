"""metrics.jsonl when a run goes on: nothing twice, nothing later, and what is lost is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cl.evaluation import AccuracyMatrix, Cell
from cl.loggers import FileLogger
from tests.cl.loggers.events import R, tell

COUNTS = np.nan_to_num(10 * R).round().astype(int).tolist()
CELLS = [Cell(i, j, 10, COUNTS[i][j], COUNTS[i][j]) for i in range(3) for j in range(i + 1)]


def told(folder: Path, change: Callable[[list[bytes]], list[bytes]]) -> list[tuple[str, int, int]]:
    """The events in metrics.jsonl after a run that had come to its third experience went on."""
    (folder / "accuracy_matrix.csv").write_text(AccuracyMatrix(CELLS).to_csv())
    tell(FileLogger(report=False), folder, last=1, finish=False)
    file = folder / "metrics.jsonl"
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    tell(FileLogger(report=False), folder, first=2, finish=False)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    return [(event["event"], event["experience"], event.get("step", 0)) for event in events]


WHOLE = [
    event
    for index in range(3)
    for event in (("step", index, 5), ("step", index, 10), ("experience", index, 0))
]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines,
        lambda lines: [*lines, lines[1], lines[2]],
        lambda lines: lines[::-1],
        lambda lines: [*lines, lines[0][:-9]],  # the kill came while it was written
        lambda lines: [
            *lines,
            b'{"event": "step", "experience": 2, "step": 5, "total_steps": 25}\n',
        ],
    ],
)
def test_each_event_is_there_once(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    assert told(tmp_path, change) == WHOLE
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said", "lost"),
    [
        (lambda lines: lines[:2] + lines[3:], "experience 0", 2),
        (lambda lines: [*lines[:2], b"\xff\xfe\n", *lines[3:]], "line 3 cannot be read", 2),
        (lambda lines: [*lines[:1], b"{}[]\n", *lines[2:]], "line 2 cannot be read", 1),
        (
            lambda lines: [*lines[:2], lines[2].replace(b"0.9", b"0.8"), *lines[3:]],
            "another thing",
            2,
        ),
        (
            lambda lines: [*lines[:2], lines[2].replace(b"[0.9]", b"7"), *lines[3:]],
            "another thing",
            2,
        ),
        (
            lambda lines: [
                line.replace(b'e", "experience": 0', b'e", "experience": 9') for line in lines
            ],
            "experience 0",
            2,
        ),
    ],
)
def test_what_is_lost_is_told_and_only_that(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[bytes]], list[bytes]],
    said: str,
    lost: int,
) -> None:
    assert told(tmp_path, change) == WHOLE[:lost] + WHOLE[lost + 1 :]
    assert said in capsys.readouterr().err


def test_all_may_be_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(tmp_path, lambda lines: []) == WHOLE[6:]
    assert "experience 0, 1" in capsys.readouterr().err
