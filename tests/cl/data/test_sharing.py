"""Several processes and one place."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cl.data import sharing
from cl.data.sharing import alone, aside, clear
from tests.processes import FORK, at_once, die, killed


def test_one_process_at_a_time(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(5):
            with alone(tmp_path / "place"):
                before = int(counter.read_text())
                time.sleep(0.001)
                counter.write_text(str(before + 1))

    at_once(4, count)
    assert counter.read_text() == "20"


def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    def hold() -> None:
        with alone(tmp_path / "place"):
            die()

    killed(hold)
    with alone(tmp_path / "place"):
        pass


def test_who_waits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PATIENCE", 0.01)
    held, told = FORK.Event(), FORK.Event()

    def hold() -> None:
        with alone(tmp_path / "place"):
            held.set()
            told.wait(10)
            (tmp_path / "done").touch()

    process = FORK.Process(target=hold)
    process.start()
    assert held.wait(10)
    monkeypatch.setattr("builtins.print", lambda *words, file: told.set())
    with alone(tmp_path / "place"):
        assert (tmp_path / "done").exists()
    process.join(10)
    assert told.is_set()


def test_only_what_was_left_of_this_place_is_deleted(tmp_path: Path) -> None:
    place = tmp_path / "p[1].zip"
    aside(place).mkdir()
    aside(place).write_text("half")
    (tmp_path / "p[1].zip.partial").mkdir()  # of version 0.1
    others = {aside(tmp_path / "p[1].zip.zip"), tmp_path / "p1.zip.partial", place}
    for other in others:
        other.write_text("another's")
    clear(place)
    assert set(tmp_path.iterdir()) == others
