"""A few kills of each sort, and that the program would notice what it looks for."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import cl.experiment
from benchmarks.kills.__main__ import Kills
from benchmarks.kills.deaths import Moment
from benchmarks.toys import DATA, save_pixels
from cl.errors import ConfigurationError
from cl.training import Training


@pytest.fixture
def kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kills:
    monkeypatch.chdir(tmp_path)
    save_pixels(Path(DATA))
    return Kills(tmp_path, seed=0)


@pytest.mark.parametrize("number", range(4))
def test_killed_runs_end_as_if_nothing_had_been(kills: Kills, number: int) -> None:
    """Numbers 0 … 3 are the four ways, of four strategies."""
    assert kills.kill(number).wrong == ""


def test_crashes_at_changes_of_files(kills: Kills) -> None:
    count = len(kills.undisturbed("naive").events)
    deaths = list(kills.crashes("naive", step=count // 3))
    assert len(deaths) >= 5
    assert all(death.died for death in deaths)
    assert [death for death in deaths if death.wrong] == []


def test_a_lost_run_is_noticed(kills: Kills, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise ConfigurationError("never")

    kills.undisturbed("naive")
    monkeypatch.setattr(cl.experiment, "load_run_config", refuse)
    middle = len(kills.undisturbed("naive").events) // 2
    death = kills.die("0", "naive", "", Moment(signal.SIGKILL, middle))
    assert death.end == "SIGKILL"
    assert death.wrong.startswith("lost: never")


def test_another_result_is_noticed(kills: Kills, monkeypatch: pytest.MonkeyPatch) -> None:
    kills.undisturbed("naive")
    monkeypatch.setattr(Training, "load", lambda self, tensors, values: None)
    middle = len(kills.undisturbed("naive").events) // 2
    death = kills.die("0", "naive", "", Moment(signal.SIGKILL, middle))
    assert "learner/state.safetensors differs" in death.wrong
