"""A logger that fails stops no run, and is named once."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from cl.errors import ResourceError
from cl.experiment import Experiment
from cl.loggers import FileLogger, Logger, Shielded
from tests.cl.loggers.events import tell
from tests.conftest import Compose

EVENTS = ("start", "step", "experience", "finish", "close")


class Failing(Logger):
    """Raises in the events named, and keeps those that it was told."""

    def __init__(self, *events: str, error: type[BaseException] = ZeroDivisionError) -> None:
        self.told: list[str] = []
        for event in EVENTS:
            setattr(self, event, self.make(event, event in events, error))

    def make(self, event: str, fails: bool, error: type[BaseException]) -> Any:
        def method(*_: object) -> None:
            self.told.append(event)
            if fails:
                raise error("over and out")

        return method


@pytest.mark.parametrize("event", EVENTS)
def test_one_warning_names_the_logger_and_what_failed(
    event: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, other = Failing(event), Failing()
    tell(Shielded([failing, other]), tmp_path)
    said = capsys.readouterr().err
    assert said.count("Failing failed") == 1, "three experiences and six steps, but one warning"
    assert f"in `{event}` (ZeroDivisionError: over and out)" in said
    assert other.told[0] == "start"
    assert other.told[-2:] == ["finish", "close"]
    told = ["start", "close"] if event == "start" else other.told
    assert failing.told == told, "one that could not start is left alone, others hear what follows"


def test_each_logger_has_its_own_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(Shielded([Failing("step"), Failing("step", "finish")]), tmp_path)
    assert capsys.readouterr().err.count("Failing failed in `step`") == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_stop_passes(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error):
        tell(Shielded([Failing("experience", error=error)]), tmp_path)


def test_a_run_with_failing_loggers_is_complete(compose: Compose) -> None:
    experiment = Experiment(compose("strategy=simplecil"), loggers=[Failing(*EVENTS)])
    summary = experiment.run()
    assert experiment.matrix.rows == 2
    assert summary["average_accuracy"] is not None


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_stops_the_run_where_its_own_files_are_concerned(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileLogger, "_write", full)
    experiment = Experiment(compose("strategy=simplecil"), loggers=[FileLogger()])
    with pytest.raises(ResourceError, match=r"is full\. Make room\. To go on"):
        experiment.run()


def test_a_full_disk_of_another_logger_stops_nothing(
    compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = Logger()
    elsewhere.experience = full  # type: ignore[method-assign]
    Experiment(compose("strategy=simplecil"), loggers=[elsewhere]).run()
    assert "Logger failed in `experience` (OSError: [Errno 28]" in capsys.readouterr().err
