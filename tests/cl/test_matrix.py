"""The accuracy matrix as a file: what cannot be right is refused, by whoever reads it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cl.errors import DataError
from cl.matrix import AccuracyMatrix, Cell
from cl.report.runs import Run
from tests.cl.report.folders import make_run

CELLS = [Cell(0, 0, 10, 7, 9), Cell(1, 0, 10, 5, 8), Cell(1, 1, 20, 20, 20)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    AccuracyMatrix(CELLS).write(tmp_path / "m.csv")
    return tmp_path / "m.csv"


def test_it_comes_back(file: Path) -> None:
    assert AccuracyMatrix.read(file) == AccuracyMatrix(CELLS)
    assert AccuracyMatrix.read(file, 1) == AccuracyMatrix(CELLS[:1])
    assert AccuracyMatrix.read(file, 0).rows == 0


def test_it_is_not_written_again_without_need(file: Path) -> None:
    before = file.stat().st_ino
    AccuracyMatrix(CELLS).write(file)
    assert file.stat().st_ino == before
    AccuracyMatrix(CELLS[:1]).write(file)
    assert AccuracyMatrix.read(file).rows == 1


def test_the_digest_tells_matrices_apart(file: Path) -> None:
    matrix = AccuracyMatrix(CELLS)
    assert matrix.digest == AccuracyMatrix.read(file).digest
    others = [AccuracyMatrix(CELLS[:1]), AccuracyMatrix([Cell(0, 0, 10, 8, 9), *CELLS[1:]])]
    assert len({matrix.digest, *(other.digest for other in others)}) == 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0,0,10,7,0.700000,9", "0,0,10,11,1.100000,11", "11 correct"),
        ("0,0,10,7,0.700000,9", "0,0,10,-7,-0.700000,9", "must be a count"),
        ("0,0,10,7,0.700000,9,0.9", "0,0,10,7,0.700000,6,0.6", "6 within the task"),
        ("0,0,10,7,0.700000,9,0.900000", "0,0,0,0,0.000000,0,0.000000", "of 0 images"),
        ("0.700000", "0.800000", "the counts say otherwise"),
        ("0.700000", "nan", "the counts say otherwise"),
        ("0.700000", "much", "could not convert"),
        ("1,0,10,", "2,0,10,", "experience 2, task 0 cannot come|lacks experiences"),
        ("1,1,20,", "1,2,20,", "experience 1, task 2 cannot come"),
        ("1,0,10,5,0.500000,8,0.8", "1,0,20,5,0.250000,8,0.4", "20 images, but 10"),
        ("1,1,20,20,1.000000,20,1.000000\n", "", "row of experience 1 is not complete"),
        ("0,0,10,7,0.700000,9,0.900000\n", "", "experience 1, task 0 cannot come first"),
        ("0,0,10,7", "0,0,10,٧", "must be a count"),
        ("0,0,10,7", "0,0,10,7_0", "must be a count"),
        ("0,0,10,7,", "0,0,10,7,7,", "line 2"),
        ("experience,task", "task,experience", "first line"),
        ("0,0,10,7,0.700000,9,0.900000\n", "0,0,10,7,0.700000,9,0.900000\n" * 2, "cannot come"),
    ],
)
def test_what_cannot_be_is_refused_by_both_readers(
    file: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    edited = text.replace(old, new, 1)
    file.write_text(edited, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        AccuracyMatrix.read(file)
    with pytest.raises(DataError, match=said):
        AccuracyMatrix.read(file, 2)
    run = make_run(tmp_path, "naive", 0, 0.5)
    (run / "accuracy_matrix.csv").write_text(edited, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        Run.load(run)


def test_bytes_that_are_no_text_and_a_file_that_is_missing(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="damaged"):
        AccuracyMatrix.read(file)
    file.unlink()
    with pytest.raises(DataError, match="is missing"):
        AccuracyMatrix.read(file)
    file.write_text("")
    with pytest.raises(DataError, match="lacks experiences"):
        AccuracyMatrix.read(file)


def test_a_line_that_a_kill_cut_short_is_made_again(file: Path) -> None:
    text = file.read_text()
    for cut in range(len(text.splitlines()[-1])):
        file.write_text(text[: -1 - cut])
        assert AccuracyMatrix.read(file, 1).rows == 1


def test_a_long_one_is_read_in_time(tmp_path: Path) -> None:
    cells = [Cell(i, j, 10, 5, 5) for i in range(150) for j in range(i + 1)]
    AccuracyMatrix(cells).write(tmp_path / "m.csv")
    assert AccuracyMatrix.read(tmp_path / "m.csv").rows == 150


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is no file"):
        AccuracyMatrix.read(tmp_path / "pipe")
