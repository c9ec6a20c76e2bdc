"""What a person sees, with and without a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

import cl.loggers.console
from cl.cli import check
from cl.errors import ConfigurationError
from cl.experiment import Experiment
from cl.loggers import ConsoleLogger
from cl.loggers.console import duration, matrix_table
from tests.cl.loggers.events import R, result, run_info, step, tell
from tests.conftest import Compose


def test_plain_lines_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(ConsoleLogger(), tmp_path)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert (
        "task   2/3  learnt  80.0%  average of tasks seen  75.0%     4.0 s  class 2, class 3"
        in (shown)
    )
    assert "average accuracy" in shown
    log = (tmp_path / "log.txt").read_text()
    assert "\x1b" not in log
    for line in shown.splitlines():
        assert line.strip(" ┃│") == "" or "task " not in line or line in log


def test_quiet_says_nothing_but_writes_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(ConsoleLogger(quiet=True), tmp_path)
    assert capsys.readouterr().out == ""
    assert "average accuracy" in (tmp_path / "log.txt").read_text()


def test_progress_names_task_epoch_speed_and_estimate(tmp_path: Path) -> None:
    logger = ConsoleLogger()
    logger.console = Console(force_terminal=True, width=120, record=True)
    logger.progress.disable = False
    logger.progress.live.console = logger.console
    run = run_info(tmp_path)
    run.config["trainer"] = {"epochs": 5}
    logger.start(run)
    logger.step(step(1, 5))
    shown = Console(width=120, file=(tmp_path / "shown").open("w"), record=True)
    shown.print(logger.progress)
    logger.close()
    text = shown.export_text()
    assert "task 2/3  epoch 3/5" in text
    assert "50 %" in text
    assert "100 images/s" in text


def test_without_a_terminal_progress_is_a_line_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 30.0, 90.0, 120.0])
    monkeypatch.setattr(cl.loggers.console.time, "monotonic", lambda: next(clock))
    logger = ConsoleLogger()
    logger.start(run_info(tmp_path))
    for number in (2, 6, 10):
        logger.step(step(1, number))
    logger.close()
    lines = [line for line in capsys.readouterr().out.splitlines() if "left" in line]
    assert lines == ["task 2/3  epoch 1/1  53%  100 images/s  about 4 min left"]


def test_the_matrix_has_a_shade_by_accuracy(tmp_path: Path) -> None:
    console = Console(
        force_terminal=True, color_system="truecolor", file=(tmp_path / "x").open("w"), record=True
    )
    console.print(matrix_table(R))
    text = console.export_text(styles=True)
    assert text.count("48;2;") == 6, "a background for each of the six cells that were measured"


def test_names_are_not_taken_for_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"stream": "[red]x[/red]", "strategy": "[/]", "backbone": "[bold]"}
    logger = ConsoleLogger()
    logger.start(run_info(tmp_path, names))
    logger.experience(result(0))
    logger.close()
    shown = capsys.readouterr().out
    assert "[/] on [red]x[/red]" in shown


def test_no_escape_sequence_reaches_terminal_or_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "a\x1b]0;owned\x07\u202e\nb"
    logger = ConsoleLogger()
    run = run_info(tmp_path, dict.fromkeys(("stream", "strategy", "backbone"), hostile))
    logger.start(replace(run, stream=replace(run.stream, about="folder: 6 classes, 60 images")))
    logger.experience(replace(result(0), classes=[hostile]))
    logger.close()
    for told in (capsys.readouterr().out, (tmp_path / "log.txt").read_text()):
        assert told.replace("\n", "").isprintable()
        assert told.count("\\x1b]0;owned") == 4
        assert "folder: 6 classes, 60 images" in told


@pytest.mark.parametrize(
    ("seconds", "shown"), [(40, "40 s"), (700, "12 min"), (12000, "3 h 20 min")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_configuration_chooses_the_loggers(compose: Compose) -> None:
    experiment = Experiment(compose("strategy=simplecil", "logger=[console]"))
    assert [type(logger).__name__ for logger in experiment.loggers] == ["ConsoleLogger"]
    silent = Experiment(compose("strategy=simplecil", "logger=[console]", "trainer.quiet=true"))
    assert silent.loggers[0].console.quiet  # type: ignore[attr-defined]
    assert not experiment.loggers[0].console.quiet  # type: ignore[attr-defined]
    default = Experiment(compose("strategy=simplecil"))
    assert [type(x).__name__ for x in default.loggers] == ["ConsoleLogger", "FileLogger"]
    with pytest.raises(ConfigurationError, match=r"logger.console.quiett.*Did you mean quiet"):
        Experiment(compose("strategy=simplecil", "+logger.console.quiett=true"))


def test_a_stored_logger_of_strangers_is_not_built(compose: Compose) -> None:
    experiment = Experiment(compose("strategy=simplecil", "logger=[]"))
    experiment.cfg.logger = {"bad": {"_target_": "os.system", "command": "true"}}
    OmegaConf.save(experiment.cfg, experiment.folder / "config.yaml", resolve=True)
    with pytest.raises(ConfigurationError, match=r"names os.system.*trust=\[os\]"):
        Experiment.resume(experiment.folder, trust=["tests"])


def test_typos_in_logger_names_are_answered() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean tensorboard"):
        check(["logger=[console,tensorbord]"])
    with pytest.raises(ConfigurationError, match=r"Did you mean logger\.wandb\.mode"):
        check(["logger=[wandb]", "logger.wandb.mod=offline"])
    check(["logger=[console,files,wandb,tensorboard]", "logger.wandb.mode=offline"])
