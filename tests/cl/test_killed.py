"""A run that is killed at any moment, and resumed, gives what an uninterrupted one gives."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors import SafetensorError

import cl.checkpoint
from cl.errors import ConfigurationError, ResourceError
from cl.experiment import Experiment
from cl.run_folder import Checkpoints, lock
from cl.stopping import StoppedError
from strategies.ewc import EWC
from tests.conftest import Compose

FORK = multiprocessing.get_context("fork")  # a child has everything imported already

RESULTS = ("accuracy_matrix.csv", "learner/state.safetensors")


def start(cfg: DictConfig, folder: Path, prepare: Callable[[], None]) -> None:
    """In a child: begin the run in `folder`, or go on with it."""
    prepare()
    if (folder / "config.yaml").exists():
        experiment = Experiment.resume(folder, loggers=None, trust=["tests"])
    else:
        folder.mkdir(exist_ok=True)
        experiment = Experiment(cfg, folder=folder)
    experiment.run()


def run(cfg: DictConfig, folder: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """The exit status of a child that does it to the end, or to its death."""
    child = FORK.Process(target=start, args=(cfg, folder, prepare))
    child.start()
    child.join(120)
    assert child.exitcode is not None
    return child.exitcode


def results(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in RESULTS]


@pytest.fixture
def cfg(compose: Compose) -> DictConfig:
    return compose(
        "strategy=ewc",
        "plugin=[ema]",
        "logger=[files]",
        "logger.files.report=false",
        "+stream.tasks=4",
        "trainer.checkpoint_minutes=1e-9",  # after every step
    )


def test_killed_at_random_moments(cfg: DictConfig, tmp_path: Path) -> None:
    began = time.monotonic()
    assert run(cfg, tmp_path / "whole") == 0
    whole = time.monotonic() - began
    expected = results(tmp_path / "whole")
    moments = random.Random(0)
    killed = 0
    for attempt in range(20):
        folder = tmp_path / f"killed{attempt}"
        child = FORK.Process(target=start, args=(cfg, folder, lambda: None))
        child.start()
        time.sleep(moments.uniform(0.02, whole))
        child.kill()
        child.join(60)
        killed += child.exitcode == -signal.SIGKILL
        if not (folder / "summary.json").exists():
            assert run(cfg, folder) == 0
        assert results(folder) == expected
    assert killed >= 10, "most of them died before they were done"


def dies_in(owner: object, name: str, call: int) -> Callable[[], None]:
    """Makes the process kill itself in the middle of this call of the function."""

    def prepare() -> None:
        original = getattr(owner, name)
        calls = 0

        def fatal(*arguments: object, **more: object) -> object:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **more)

        setattr(owner, name, fatal)

    return prepare


def test_killed_while_a_checkpoint_is_written_and_in_the_hooks(
    cfg: DictConfig, tmp_path: Path
) -> None:
    assert run(cfg, tmp_path / "whole") == 0
    expected = results(tmp_path / "whole")
    moments = [(cl.checkpoint, "_replace", call) for call in (1, 4, 7, 15, 23, 40)]
    moments += [(Checkpoints, "_forget", 5), (EWC, "after_experience", 1)]
    moments += [(EWC, "after_experience", 3)]
    for number, (owner, name, call) in enumerate(moments):
        folder = tmp_path / f"killed{number}"
        assert run(cfg, folder, dies_in(owner, name, call)) == -signal.SIGKILL
        assert run(cfg, folder) == 0
        assert results(folder) == expected


def test_a_folder_in_use_is_locked(cfg: DictConfig, tmp_path: Path) -> None:
    folder = tmp_path / "used"
    folder.mkdir()
    with lock(folder), pytest.raises(ConfigurationError, match="in use by another process"):
        Experiment(cfg, loggers=[], folder=folder).run()
    Experiment(cfg, loggers=[], folder=folder).run()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_run_after_a_checkpoint(
    cfg: DictConfig, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    experiment = Experiment(cfg, loggers=[], folder=tmp_path)
    step = experiment._checkpoint_midway

    def signalled(progress: object) -> None:
        if experiment.matrix.rows == 1:
            os.kill(os.getpid(), number)
        step(progress)  # type: ignore[arg-type]

    experiment._checkpoint_midway = signalled  # type: ignore[method-assign]
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(StoppedError, match=f"resume={tmp_path}") as stopped:
        experiment.run()
    assert stopped.value.status == status
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert Checkpoints(tmp_path).midway(1)


def test_without_checkpoints_no_resume_is_promised(
    cfg: DictConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg.trainer.checkpoint = False
    experiment = Experiment(cfg, loggers=[], folder=tmp_path)
    step = experiment._checkpoint_midway

    def signalled(progress: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        step(progress)  # type: ignore[arg-type]

    experiment._checkpoint_midway = signalled  # type: ignore[method-assign]
    with pytest.raises(StoppedError, match="must begin anew") as stopped:
        experiment.run()
    said = str(stopped.value) + capsys.readouterr().err
    assert "resume=" not in said
    assert "next checkpoint" not in said


def test_a_full_disk_keeps_the_earlier_checkpoints(
    cfg: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(cfg, loggers=[], folder=tmp_path)
    original = cl.checkpoint.save_file

    def full(tensors: dict[str, object], file: Path) -> None:
        if experiment.matrix.rows == 2:
            raise OSError(28, "No space left on device")
        original(tensors, file)

    monkeypatch.setattr(cl.checkpoint, "save_file", full)
    with pytest.raises(ResourceError, match=f"resume={tmp_path}"):
        experiment.run()
    monkeypatch.undo()
    assert [path.name for path in Checkpoints(tmp_path).between()] == ["000001"]
    resumed = Experiment.resume(tmp_path, loggers=[], trust=["tests"])
    resumed.run()
    assert resumed.matrix.rows == 4


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (OSError(errno.EMFILE, "Too many open files", "x"), "ulimit -n"),
        (PermissionError(errno.EACCES, "Permission denied", "split.npz"), "split.npz: Permission"),
        (OSError(errno.EROFS, "Read-only file system", "split.npz"), "Read-only file system"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "is full"),
        (SafetensorError("I/O error: File too large (os error 27)"), "ulimit -f"),
    ],
)
def test_what_the_system_refuses_is_said_with_what_to_do(
    cfg: DictConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    answer: str,
) -> None:
    experiment = Experiment(cfg, loggers=[], folder=tmp_path)

    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(experiment.matrix, "write", refused)
    with pytest.raises(ResourceError, match=answer) as explained:
        experiment.run()
    assert f"python run.py resume={tmp_path}" in str(explained.value)


def test_a_folder_that_may_not_be_written_is_explained(
    cfg: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / ".lock"))

    experiment = Experiment(cfg, loggers=[], folder=tmp_path)
    monkeypatch.setattr("cl.run_folder.FileLock", refused)
    with pytest.raises(ResourceError, match=r"\.lock: Read-only file system"):
        experiment.run()


def test_another_error_stays_what_it_is(cfg: DictConfig, tmp_path: Path) -> None:
    experiment = Experiment(cfg, loggers=[], folder=tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise ValueError("a mistake in a method")

    experiment.learner.learn_experience = broken  # type: ignore[assignment]
    with pytest.raises(ValueError, match="a mistake in a method"):
        experiment.run()


def test_out_of_memory_says_what_to_try(
    cfg: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(cfg, loggers=[], folder=tmp_path)

    def enormous(*_: object) -> torch.Tensor:
        return torch.empty(2**50, dtype=torch.uint8)  # a real failure of the allocator

    monkeypatch.setattr(experiment.learner.model, "forward", enormous)
    with pytest.raises(ResourceError, match=r"trainer\.batch_size=4,"):
        experiment.run()


def test_the_command_line_stops_and_goes_on(tmp_path: Path) -> None:
    """SIGTERM, as a scheduler sends it: a checkpoint, the command that goes on, and status 143."""
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "run.py")]
    settings = ["stream=split_digits", "stream.tasks=2", "strategy=naive", "trainer.epochs=2"]
    settings += ["logger=[files]", f"output={tmp_path}/runs"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *settings], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if any(file.stat().st_size for file in tmp_path.rglob("metrics.jsonl")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    (shown,) = [line for line in said.splitlines() if "To go on: python run.py " in line]
    again = shown.split("run.py ")[1].split()
    subprocess.run([*command, *again], cwd=tmp_path, env=environment, check=True, timeout=240)
    (summary,) = tmp_path.rglob("summary.json")
    assert json.loads(summary.read_text())["average_accuracy"] > 0
