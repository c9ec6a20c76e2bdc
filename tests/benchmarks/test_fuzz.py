"""A few mutations of every kind of file, and that the program would notice what it looks for."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fuzz import harness
from benchmarks.fuzz.__main__ import KINDS, play_all, replay, tabulate
from benchmarks.fuzz.harness import DEFECTS, Kind, play
from benchmarks.fuzz.structure import MARK, SECRET
from cl.errors import DataError

SEED, CASES = 0, 10


@pytest.mark.parametrize("name", KINDS)
def test_no_mutation_is_a_traceback_a_hang_or_silently_wrong(name: str) -> None:
    count = max(2, round(CASES * KINDS[name].share))
    outcomes = list(play(KINDS[name], SEED, range(count)))
    assert len(outcomes) == count
    bad = [outcome for outcome in outcomes if outcome.verdict in DEFECTS]
    shown = [f"{o.verdict}: {o.mutation}: {o.message} {o.where}\n{replay(o, SEED)}" for o in bad]
    assert not bad, "\n".join(shown)


class Planted(Kind):
    """A reader with known defects, and no damage."""

    name = "planted"

    def make(self, folder: Path) -> None:
        (folder / "number").write_text("0")

    def mutate(self, folder: Path, chance: Any) -> str:
        (folder / "number").write_text("1")
        return "1"

    def read(self, folder: Path) -> Any:
        return self.deed(folder) if (folder / "number").read_text() == "1" else "right"

    def deed(self, folder: Path) -> Any:
        raise NotImplementedError


def refuse(folder: Path) -> None:
    raise DataError("it is damaged")


def sleep(folder: Path) -> None:
    time.sleep(60)


def allocate(folder: Path) -> int:
    return len(bytearray(16 * 2**30))


DEEDS = {
    "sentence": refuse,
    "same": lambda folder: "right",
    "traceback": lambda folder: {}["x"],
    "traceback, MemoryError": allocate,
    "traceback, exit status 3": lambda folder: os._exit(3),
    "hang": sleep,
    "wrong, not a word": lambda folder: "another",
    "wrong, executed": lambda folder: (folder / MARK).touch(),
    "wrong, environment": lambda folder: print(os.environ[SECRET]),
    "sentence, other": lambda folder: print("something is left out"),
}


@pytest.mark.parametrize("expected", DEEDS)
def test_defects_are_noticed(expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SECONDS", 0.5)
    kind = Planted()
    monkeypatch.setattr(kind, "deed", DEEDS[expected], raising=False)
    first, second = play(kind, 0, [3, 4])
    verdict, _, message = expected.partition(", ")
    assert (first.verdict, first.number, second.number) == (verdict, 3, 4)
    assert second.verdict == verdict, "the cases go on after one that ends the process"
    assert message in first.message or message == "other"


def test_a_case_can_be_replayed_and_is_counted() -> None:
    (alone,) = play_all(1, SEED, "data: npz:5")
    among = list(play_all(7, SEED, "data: npz"))[5]
    assert alone == among
    assert sum(tabulate([alone])["all"].values()) == 2  # the case, and its verdict
