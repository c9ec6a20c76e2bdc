"""What wandb really writes, read back from its own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.errors import ConfigurationError
from cl.experiment import Experiment
from cl.loggers.wandb import WandbLogger
from tests.cl.loggers.events import R, result, run_info, step, tell
from tests.cl.loggers.wandb_files import Stored, records
from tests.conftest import Compose


def test_every_promised_series_is_in_wandbs_own_files(tmp_path: Path) -> None:
    tell(WandbLogger(mode="offline", tags=["mine"]), tmp_path)
    stored = Stored(tmp_path)
    assert stored.run.project == "palimpsest"
    assert stored.run.run_group == "toy/nano/test"
    assert set(stored.run.tags) == {"mine", "toy", "test", "nano"}
    assert stored.run.run_id == json.loads((tmp_path / "wandb.json").read_text())["id"]
    assert stored.config["strategy"] == {"_target_": "a.B", "strength": 0.5}
    assert stored.config["seed"] == 3
    assert stored.config["pretrained"] == "nano, 1.0"
    steps = [5, 10, 15, 20, 25, 30]
    for name, first in (("loss", 0.4), ("cross_entropy", 0.3), ("penalty", 0.1), ("lr", 1e-3)):
        series = stored.series(f"train/{name}", "step")
        assert list(series) == steps
        assert series[5] == pytest.approx(first)
    assert stored.series("train/images_per_second", "step")[30] == 100
    for task in range(3):
        column = stored.series(f"test/accuracy/task_{task + 1}", "experience")
        assert column == {i: R[i, task] for i in range(task, 3)}
    assert stored.series("test/average_accuracy", "experience") == pytest.approx(
        {0: 0.9, 1: 0.75, 2: 0.7}
    )
    assert stored.series("test/forgetting", "experience") == pytest.approx({1: 0.2, 2: 0.3})
    assert stored.series("learnt/overlap", "experience") == {0: 0, 1: 0.25, 2: 0.5}
    assert stored.series("cost/training_seconds", "experience") == {0: 2, 1: 3, 2: 4}
    assert stored.series("cost/evaluation_seconds", "experience") == {0: 1, 1: 1, 2: 1}
    assert stored.series("cost/stored_numbers", "experience")[2] == 3000
    assert stored.series("cost/peak_memory_bytes", "experience")[2] == 3 * 2**20
    assert stored.summary["average_accuracy"] == pytest.approx(0.7)
    assert stored.summary["within_task.forgetting"] == pytest.approx(0.3)
    assert stored.exit_code == 0


def test_each_series_has_its_own_axis(tmp_path: Path) -> None:
    tell(WandbLogger(mode="offline"), tmp_path)
    stored = Stored(tmp_path)
    assert stored.axes["train/*"] == "step"
    assert {stored.axes[f"{part}/*"] for part in ("test", "learnt", "cost")} == {"experience"}
    for row in stored.rows:
        assert "step" in row or "experience" in row


def test_the_matrix_is_a_table_and_a_picture(tmp_path: Path) -> None:
    tell(WandbLogger(mode="offline"), tmp_path)
    stored = Stored(tmp_path)
    files = stored.file.parent / "files"
    last = [row for row in stored.rows if "matrix/table.path" in row][-1]
    table = json.loads((files / last["matrix/table.path"]).read_text())
    assert table["columns"] == ["after task", "task 1", "task 2", "task 3"]
    assert table["data"] == [[1, 0.9, None, None], [2, 0.7, 0.8, None], [3, 0.6, 0.5, 1.0]]
    assert (files / last["matrix/heat_map.path"]).read_bytes().startswith(b"\x89PNG")
    assert last["matrix/heat_map.width"] > 100


def test_a_resumed_run_goes_on_in_the_same_place(tmp_path: Path) -> None:
    logger = WandbLogger(mode="offline")
    logger.start(run_info(tmp_path))
    for index in (0, 1):
        logger.step(step(index, 5))
        logger.step(step(index, 10))
        if index == 0:
            logger.experience(result(0))
    logger.close()  # interrupted before the second experience was evaluated
    first = Stored(tmp_path)
    assert first.exit_code == 1
    tell(WandbLogger(mode="offline", project="another"), tmp_path, first=1)
    second = Stored(tmp_path)
    assert second.file != first.file
    assert second.run.run_id == first.run.run_id
    assert second.run.project == "palimpsest"
    numbers = {row["_step"]: row for row in first.rows}
    again = {row["_step"]: row for row in second.rows if row["_step"] in numbers}
    assert len(again) == 2, "the two rows of the experience that was begun"
    for number, row in again.items():
        assert row["train/loss"] == numbers[number]["train/loss"]
    assert min({row["_step"] for row in second.rows} - set(numbers)) > max(numbers)


def test_the_run_folder_goes_along_if_asked(tmp_path: Path) -> None:
    (tmp_path / "accuracy_matrix.csv").write_text("experience,task\n")
    tell(WandbLogger(mode="offline", save_artifact=True), tmp_path)
    stored = Stored(tmp_path)
    artifacts = [
        r.artifact for r in records(stored.file) if r.WhichOneof("record_type") == "artifact"
    ] + [
        r.request.log_artifact.artifact
        for r in records(stored.file)
        if r.WhichOneof("record_type") == "request"
    ]
    names = {entry.path for artifact in artifacts for entry in artifact.manifest.contents}
    assert "accuracy_matrix.csv" in names
    assert not any(name.startswith("wandb/") for name in names)


def test_disabled_does_nothing(tmp_path: Path) -> None:
    tell(WandbLogger(mode="disabled"), tmp_path)
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ["summary.json"], "the run's own; not even a folder of the logger's"


def test_a_wrong_mode_is_answered() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean offline"):
        WandbLogger(mode="ofline")  # type: ignore[arg-type]


def test_an_error_of_wandb_is_said_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(self: WandbLogger, R: np.ndarray) -> dict[str, Any]:
        raise OSError("no space left")

    monkeypatch.setattr(WandbLogger, "_pictures", fail)
    tell(WandbLogger(mode="offline"), tmp_path)
    assert capfd.readouterr().err.count("Weights & Biases failed (no space left)") == 1


def test_a_real_run(compose: Compose) -> None:
    cfg = compose("strategy=ewc", "logger=[files,wandb]", "logger.wandb.mode=offline")
    experiment = Experiment(cfg)
    summary = experiment.run()
    stored = Stored(experiment.folder)
    assert stored.config["strategy"]["strength"] == 1e4
    assert stored.summary["average_accuracy"] == pytest.approx(summary["average_accuracy"])
    steps = stored.series("train/loss", "step")
    assert max(steps) == experiment.steps
    assert stored.series("train/penalty", "step")
    assert stored.series("train/cross_entropy", "step").keys() == steps.keys()
