"""What a run leaves behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cl.checkpoint import load_json
from cl.errors import ConfigurationError
from cl.evaluation import AccuracyMatrix, Cell
from cl.experiment import Experiment
from cl.learner import Learner
from cl.loggers import ExperienceResult, Logger
from cl.run_folder import Checkpoints
from tests.conftest import Compose, toy_stream


def test_joint_training_has_no_forgetting_to_report(compose: Compose) -> None:
    experiment = Experiment(compose("strategy=joint"))
    seen: list[dict[str, float]] = []
    watch = Logger()
    watch.experience = lambda result: seen.append(result.metrics())  # type: ignore[method-assign]
    experiment.loggers = [*experiment.loggers, watch]
    summary = experiment.run()
    for found in (summary, summary["within_task"]):
        assert found["forgetting"] is found["backward_transfer"] is None
    assert summary["average_accuracy"] is not None
    assert not {"forgetting", "backward_transfer"} & seen[1].keys()


def test_the_run_folder_holds_everything(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment(compose("strategy=ewc"))
    summary = experiment.run()
    folder = experiment.folder
    assert folder.parent == tmp_path / "runs" / "toy" / "test" / "nano"
    assert folder.name.endswith("-seed0")
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.yaml",
        "metrics.jsonl",
        "accuracy_matrix.csv",
        "summary.json",
        "log.txt",
    }
    assert json.loads((folder / "summary.json").read_text()) == summary
    for key in (
        "average_accuracy",
        "average_incremental_accuracy",
        "forgetting",
        "backward_transfer",
        "learning_accuracy",
        "seconds",
        "trainable_parameters",
        "stored_numbers",
        "peak_memory_bytes",
        "pretrained",
        "versions",
        "hardware",
        "git_revision",
    ):
        assert key in summary
    assert summary["forward_transfer"] is None, "undefined on a single growing head"
    assert OmegaConf.load(folder / "config.yaml").strategy.strength == 1e4
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [e["experience"] for e in events if e["event"] == "experience"] == [0, 1]
    steps = [e for e in events if e["event"] == "step"]
    assert {"loss", "lr", "cross_entropy", "step"} <= steps[0].keys()
    shown = capsys.readouterr().out
    assert "average accuracy" in shown
    assert "The backbone starts at random" in shown
    assert folder.name in shown.replace("\n", "")
    assert "average accuracy" in (folder / "log.txt").read_text()
    opened = Learner.load(folder / "learner")
    assert len(opened.class_names) == 4


def test_the_matrix_file_holds_the_counts(compose: Compose) -> None:
    experiment = Experiment(compose("strategy=simplecil"), loggers=[])
    experiment.run()
    rows = list(csv.DictReader((experiment.folder / "accuracy_matrix.csv").open()))
    assert [(row["experience"], row["task"]) for row in rows] == [
        ("0", "0"),
        ("1", "0"),
        ("1", "1"),
    ]
    for row in rows:
        assert int(row["images"]) == 12
        assert int(row["correct"]) <= int(row["correct_within_task"]) <= 12
        assert float(row["accuracy"]) == pytest.approx(int(row["correct"]) / 12, abs=1e-6)


def test_the_mask_counts_answers_among_the_classes_of_the_task() -> None:
    matrix = AccuracyMatrix([Cell(0, 0, 10, 7, 9)])
    assert matrix.values()[0, 0] == 0.7
    assert matrix.values(within_task=True)[0, 0] == 0.9


def test_a_second_run_in_the_same_second_gets_its_own_folder(compose: Compose) -> None:
    cfg = compose("strategy=simplecil")
    assert len({Experiment(cfg, loggers=[]).folder for _ in range(5)}) == 5


class StopAfter(Logger):
    def __init__(self, experience: int) -> None:
        self.index = experience

    def experience(self, result: ExperienceResult) -> None:
        if result.index == self.index:
            raise KeyboardInterrupt


def four_tasks(compose: Compose) -> Experiment:
    return Experiment(compose("strategy=naive", "+stream.tasks=4"), loggers=[StopAfter(2)])


def test_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(compose: Compose) -> None:
    whole = Experiment(compose("strategy=naive", "+stream.tasks=4"), loggers=[])
    whole.run()
    stopped = four_tasks(compose)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    kept = Checkpoints(stopped.folder).between()
    assert [path.name for path in kept] == ["000001", "000002"]
    state = kept[1] / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-7])
    resumed = Experiment.resume(stopped.folder, loggers=[], trust=["tests"])
    assert resumed.matrix.rows == 1
    resumed.run()
    assert (resumed.folder / "accuracy_matrix.csv").read_bytes() == (
        whole.folder / "accuracy_matrix.csv"
    ).read_bytes()
    assert not Checkpoints(resumed.folder).between(), "a complete run needs none"


def test_a_half_written_checkpoint_is_ignored(compose: Compose) -> None:
    stopped = four_tasks(compose)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    newest = Checkpoints(stopped.folder).between()[-1]
    newest.rename(newest.with_suffix(".partial"))
    assert Experiment.resume(stopped.folder, loggers=[], trust=["tests"]).matrix.rows == 1


def test_a_complete_run_is_not_resumed(compose: Compose) -> None:
    experiment = Experiment(compose("strategy=simplecil"), loggers=[])
    experiment.run()
    (experiment.folder / "summary.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="is complete"):
        Experiment.resume(experiment.folder, trust=["tests"])


def test_a_stored_stream_of_strangers_is_not_run(compose: Compose) -> None:
    stopped = four_tasks(compose)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    with pytest.raises(ConfigurationError, match=r"trust=\[tests\]"):
        Experiment.resume(stopped.folder, loggers=[])


def test_a_checkpoint_tells_what_was_counted(compose: Compose) -> None:
    stopped = four_tasks(compose)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    progress = load_json(Checkpoints(stopped.folder).between()[-1] / "progress.json")
    assert progress["steps"] == 2 * 2 * 2
    assert Experiment.resume(stopped.folder, [], ["tests"]).matrix.rows == 2


def test_toy_stream_is_learnable(compose: Compose) -> None:
    """The other tests mean something only if there is something to learn."""
    experiment = Experiment(
        compose("strategy=naive", "trainer.lr=1e-3", "trainer.epochs=8"), loggers=[]
    )
    assert experiment.run()["within_task"]["learning_accuracy"] > 0.8
    assert len(toy_stream()) == 2
