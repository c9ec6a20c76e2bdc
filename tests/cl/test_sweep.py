"""A sweep: a run that fails stops no other, is listed at the end, and the rest is compared."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

import cl.sweep
import configs
from cl.checkpoint import save_json
from cl.errors import ConfigurationError, DataError
from cl.learner import Learner
from cl.loggers import ExperienceResult, FileLogger, Logger
from cl.report.groups import read_jobs
from cl.stopping import StoppedError
from cl.sweep import UNFINISHED, begin, note, run, varied
from tests.processes import at_once

ROOT = Path(configs.__file__).parent.parent


def test_a_failing_run_is_listed_and_the_others_are_compared(tmp_path: Path) -> None:
    arguments = ["-m", "strategy=simplecil", "stream.tasks=2,11", "seed=0,1"]
    arguments += ["backbone.image_size=8", "logger=[files]", "logger.files.report=false"]
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1, result.stderr
    assert "2 of 4 runs failed" in result.stderr
    assert "stream.tasks=11 seed=1" in result.stderr
    assert "at most 10 tasks" in result.stderr
    assert "Traceback" not in result.stderr
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    assert {"comparison.md", "comparison.csv", "comparison.tex", "curves.png"} <= {
        file.name for file in sweep.iterdir()
    }
    table = (sweep / "comparison.md").read_text()
    assert "| stream.tasks=2 | 2 |" in table, "its n is 2"
    jobs = [json.loads(file.read_text()) for file in sorted((sweep / "jobs").iterdir())]
    assert [job["error"] is None for job in jobs] == [True, True, False, False]


Job = Callable[[int, str], DictConfig]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The configuration that Hydra gives to one run of a sweep."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # restored afterwards

    def make(number: int, strategy: str) -> DictConfig:
        choices = [f"strategy={strategy}", "stream._target_=tests.conftest.toy_stream"]
        choices += ["stream=custom", "backbone.image_size=8", "backbone.pretrained=false"]
        choices += ["trainer.device=cpu", f"output={tmp_path}/runs", "logger=[files]"]
        choices += ["logger.files.report=false"]
        where = [f"hydra.sweep.dir={tmp_path}/sweep", f"hydra.job.num={number}"]
        with initialize_config_module("configs", version_base="1.3"):
            cfg = compose(
                "config", [*choices, *where, "hydra.mode=MULTIRUN"], return_hydra_config=True
            )
        HydraConfig.instance().set_config(cfg)
        plain = copy.deepcopy(cfg)
        with open_dict(plain):
            del plain["hydra"]
        return plain

    return make


def test_a_run_of_a_sweep_returns_its_number(job: Job, tmp_path: Path) -> None:
    number = run(job(0, "simplecil"))
    (noted,) = read_jobs(tmp_path / "sweep")
    summary = json.loads((noted["folder"] / "summary.json").read_text())
    assert number == summary["average_accuracy"]
    assert run(job(0, "simplecil")) == number, "it is complete, so it is read"
    broken = job(1, "naive")
    broken.seed = "${seed}"
    assert math.isnan(run(broken))


@pytest.mark.parametrize(
    ("owner", "name"), [(Learner, "save"), (FileLogger, "finish"), (cl.sweep, "note")]
)
def test_a_signal_in_the_tail_of_a_run_ends_the_sweep(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    """The run has nothing left to stop, so it is complete; no other run begins after it."""
    original = getattr(owner, name)

    def signalled(*arguments: Any, **more: Any) -> None:
        begins = name == "note" and arguments[1:] == (UNFINISHED,)
        midway = name == "save" and arguments[1].name != "learner"
        if not (begins or midway):
            os.kill(os.getpid(), signal.SIGTERM)
        original(*arguments, **more)

    monkeypatch.setattr(owner, name, signalled)
    with pytest.raises(StoppedError, match=r"hydra\.sweep\.dir=") as stopped:
        run(job(0, "simplecil"))
    assert stopped.value.status == 143
    (noted,) = read_jobs(tmp_path / "sweep")
    assert noted["error"] is None
    assert (noted["folder"] / "summary.json").exists()
    Learner.load(noted["folder"] / "learner")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_to_a_run_that_fails_ends_the_sweep_all_the_same(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("no")

    monkeypatch.setattr(Learner, "save", fails)
    with pytest.raises(StoppedError) as stopped:
        run(job(0, "simplecil"))
    assert stopped.value.status == 130
    assert read_jobs(tmp_path / "sweep")[0]["error"] == "ValueError: no"


def test_an_interpolation_that_leads_nowhere_fails_its_run_only(job: Job, tmp_path: Path) -> None:
    cfg = job(0, "simplecil")
    cfg.seed = "${seed}"
    run(cfg)
    assert "seed: Recursive interpolation" in read_jobs(tmp_path / "sweep")[0]["error"]


def test_a_run_of_a_sweep_goes_on_where_an_earlier_attempt_stopped(
    job: Job, tmp_path: Path
) -> None:
    class Killed(Logger):
        def experience(self, result: ExperienceResult) -> None:
            if result.index == 1:
                raise KeyboardInterrupt

    first = begin(job(0, "simplecil"))
    assert first is not None
    first.loggers = [Killed()]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    (noted,) = read_jobs(tmp_path / "sweep")
    assert noted["folder"] == first.folder
    assert noted["error"] == UNFINISHED, "it is listed, although nobody was left to note an error"

    other = begin(job(1, "naive"))
    assert other is not None
    assert other.matrix.rows == 0, "another run begins at the beginning"

    config = first.folder / "config.yaml"
    honest = config.read_text()
    for target in ("os.system", "cl.instantiate.build"):
        config.write_text(honest.replace("strategies.simplecil.SimpleCIL", target))
        with pytest.raises(ConfigurationError, match=target):
            begin(job(0, "simplecil"))
    config.write_text(honest)

    again = begin(job(0, "simplecil"))
    assert again is not None
    assert (again.folder, again.matrix.rows) == (first.folder, 1)
    again.run()
    assert begin(job(0, "simplecil")) is None, "there is nothing left to do"
    assert read_jobs(tmp_path / "sweep")[0]["error"] is None


def test_a_sweep_that_was_started_twice_notes_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # restored afterwards
    job = {"sweep": {"dir": str(tmp_path)}, "job": {"num": 3}, "overrides": {"task": ["seed=1"]}}
    HydraConfig.instance().cfg = OmegaConf.create({"hydra": job})
    at_once(4, lambda: [note(tmp_path / "run", "stopped") for _ in range(20)])
    (found,) = read_jobs(tmp_path)
    assert (found["overrides"], found["folder"]) == (["seed=1"], tmp_path / "run")
    assert [file.name for file in (tmp_path / "jobs").iterdir()] == ["00003.json"]


def test_a_sweep_is_compared_by_what_varies() -> None:
    def jobs(*overrides: list[str]) -> list[dict[str, object]]:
        return [{"overrides": each, "folder": None} for each in overrides]

    assert varied(jobs(["strategy=a", "seed=0"], ["strategy=b", "seed=1"])) == ["strategy"]
    assert varied(jobs(["seed=0", "trainer.lr=1"], ["seed=1", "trainer.lr=1"])) == ["strategy"]
    assert varied(jobs(["strategy.rank=1"], ["strategy.rank=2"])) == ["strategy.rank"]


def test_what_was_noted_must_be_what_the_run_says(tmp_path: Path) -> None:
    config = {"seed": 0, "trainer": {"lr": 0.1, "quiet": True}, "strategy": {"_target_": "a.B"}}
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    right = ["seed=0", "trainer.lr=1e-1", "+trainer.quiet=true", "strategy=b", "trainer.x=${seed}"]
    varied([{"overrides": right, "folder": tmp_path}])
    for wrong in ("seed=1", "seed=", "seed=x", "trainer.lr=0.2", "trainer.quiet=false"):
        with pytest.raises(DataError, match="its sweep noted"):
            varied([{"overrides": [wrong], "folder": tmp_path}])


@pytest.mark.parametrize(
    "content",
    [
        {"overrides": [1], "folder": "x", "error": None},
        {"overrides": [None], "folder": "x", "error": None},
        {"overrides": ["no value"], "folder": "x", "error": None},
        {"overrides": ["\x00"], "folder": "x", "error": None},
        {"overrides": ["=3"], "folder": "x", "error": None},
        {"overrides": ["seed=0"], "folder": None, "error": None},
    ],
)
def test_notes_that_cannot_be_right(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "jobs").mkdir()
    save_json(content, tmp_path / "jobs" / "00000.json")
    with pytest.raises(DataError, match=r"00000\.json is damaged"):
        read_jobs(tmp_path)


def test_an_error_is_shown_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    noted = {"overrides": ["~plugin", "+a.b=1"], "folder": None, "error": "\x1b[31m\u202e no"}
    save_json(noted, tmp_path / "jobs" / "00000.json")
    assert read_jobs(tmp_path)[0]["error"] == "\\x1b[31m\\u202e no"
