"""A metric of one's own is shown every answer, its numbers go everywhere, and it survives a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from cl.compare import compare
from cl.errors import ConfigurationError
from cl.evaluation.answers import FILE
from cl.experiment import Experiment
from cl.loggers import ExperienceResult, Logger
from cl.overrides import check
from cl.report.runs import Run
from cl.run_folder import Checkpoints
from tests.conftest import Compose

OWN = "+metric.mine._target_=tests.cl.evaluation.own"
COUNTING = f"{OWN}.Counting"
FOUR = "+stream.tasks=4"


class Kill(Logger):
    def experience(self, result: ExperienceResult) -> None:
        if result.index == 2:
            raise KeyboardInterrupt


def test_numbers_reach_every_place(compose: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = Experiment(compose("strategy=simplecil", COUNTING))
    results: list[ExperienceResult] = []
    listener = Logger()
    listener.experience = results.append  # type: ignore[method-assign]
    experiment.loggers.append(listener)
    summary = experiment.run()
    right = sum(cell.correct for cell in experiment.matrix.cells)
    expected = {"shown": 24.0, "tasks": 2.0, "right": float(right), "total": 36.0, "passes": 2.0}
    assert summary["metrics"] == expected
    assert summary["undefined"] == {}
    assert results[0].measured["passes"] is None
    assert results[1].metrics().items() >= expected.items()
    run = Run.load(experiment.folder)
    assert [event["metrics"]["total"] for event in run.experiences] == [12.0, 36.0]
    assert run.experiences[0]["metrics"]["passes"] is None
    assert f"│ right                        │ {right}" in capsys.readouterr().out
    found = compare([experiment.folder], metric="metrics.right")
    assert found.groups[0].values("metrics.right") == [right]
    assert found.columns[:2] == ["metrics.right", "average_accuracy"]
    assert {"metrics.total", "metrics.passes"} <= {*found.columns}
    assert f"{right}.0000" in found.table()[1][0]
    assert f"<td>right</td><td>{right}</td>" in (experiment.folder / "report.html").read_text()


def test_what_is_not_defined_says_why(compose: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = Experiment(compose("strategy=simplecil", COUNTING, "+stream.tasks=1"))
    summary = experiment.run()
    assert summary["metrics"]["passes"] is None
    assert summary["undefined"] == {"passes": "needs two tasks"}
    assert "undefined: needs two tasks" in capsys.readouterr().out
    assert "undefined: needs two tasks" in (experiment.folder / "report.html").read_text()


def test_several_moments_are_several_metrics(compose: Compose) -> None:
    when = "evaluation.when=[after,before,during]"
    summary = Experiment(compose("strategy=naive", COUNTING, when, FOUR), loggers=[]).run()
    numbers = summary["metrics"]
    # 4 tasks with 12 training and 6 test images each.
    assert numbers["total"] == 6 + 12 + 18 + 24
    assert numbers["before_total"] == 6 + 12 + 18
    assert numbers["during_total"] == 4 * 12, "each image once, although there are two epochs"
    assert numbers["passes"] == numbers["during_passes"] == 4


@pytest.mark.parametrize(
    ("tasks", "shown"), [("seen", [1, 2, 3]), ("next", [2, 3, 3]), ("all", [3, 3, 3])]
)
def test_whose_test_images(compose: Compose, tasks: str, shown: list[int]) -> None:
    cfg = compose(
        "strategy=naive",
        COUNTING,
        f"evaluation.tasks={tasks}",
        "+stream.tasks=3",
        "+stream.classes=6",
    )
    experiment = Experiment(cfg, loggers=[])
    results: list[float | None] = []
    listener = Logger()
    listener.experience = lambda result: results.append(result.measured["tasks"])  # type: ignore[method-assign]
    experiment.loggers = [listener]
    experiment.run()
    assert results == shown
    assert [len(row) for row in experiment.matrix.by_experience] == [1, 2, 3]


@pytest.mark.parametrize("strategy", ["er", "l2p"])
def test_looking_changes_nothing(compose: Compose, strategy: str) -> None:
    """The same bits, whatever is measured: random numbers and modes are left as they were."""
    weights = []
    for more in ([], [COUNTING, "evaluation.when=[after,before,during]", "evaluation.tasks=all"]):
        experiment = Experiment(
            compose(f"strategy={strategy}", "backbone.image_size=16", *more), loggers=[]
        )
        experiment.run()
        weights.append((experiment.matrix, experiment.learner.state.state_dict()))
    (matrix, first), (other, second) = weights
    assert matrix == other
    assert all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"] for line in lines if '"event": "experience"' in line]


FEW = ["+stream.tasks=3", "+stream.classes=6", "trainer.epochs=1", "logger.files.report=false"]
WHEN = "evaluation.when=[after,before,during]"


def measured(compose: Compose, *more: str) -> DictConfig:
    ready_made = ["metric=[continual,negative_flips,online,cka_drift]", "metric.continual.every=1"]
    return compose("strategy=naive", COUNTING, WHEN, "logger=[files]", *ready_made, *FEW, *more)


def test_the_state_survives_a_kill_between_experiences(compose: Compose) -> None:
    whole = Experiment(measured(compose))
    summary = whole.run()
    killed = Experiment(measured(compose))
    killed.loggers.append(Kill())
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    with (killed.folder / FILE).open("ab") as out:
        out.write(b"\x93NUMPY\x01\x00 what was cut short")
    again = Experiment.resume(killed.folder, trust=["tests"])
    assert again.run()["metrics"] == summary["metrics"]
    assert metrics_of(killed.folder) == metrics_of(whole.folder)
    assert (killed.folder / FILE).read_bytes() == (whole.folder / FILE).read_bytes()


def test_the_state_survives_a_kill_inside_an_experience(compose: Compose) -> None:
    cfg = measured(compose, "trainer.checkpoint_minutes=1e-9")
    whole = Experiment(cfg)
    summary = whole.run()
    killed = Experiment(cfg)
    write = killed._checkpoint_midway

    def dying(progress: Any) -> None:
        write(progress)
        if (progress.experience, progress.step) == (1, 1):
            raise KeyboardInterrupt

    killed._checkpoint_midway = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    assert Checkpoints(killed.folder).midway(1)
    again = Experiment.resume(killed.folder, trust=["tests"])
    assert again.midway is not None
    assert again.run()["metrics"] == summary["metrics"]
    assert metrics_of(killed.folder) == metrics_of(whole.folder)


@pytest.mark.parametrize("hook", ["before", "batch", "after"])
def test_a_metric_that_fails_stops_no_run(
    compose: Compose, capsys: pytest.CaptureFixture[str], hook: str
) -> None:
    cfg = compose(
        "strategy=simplecil", f"{OWN}.Failing", f"+metric.mine.hook={hook}", "metric=[ece]"
    )
    summary = Experiment(cfg, loggers=[]).run()
    assert summary["metrics"]["mine"] is None
    assert summary["undefined"] == {"mine": f"`{hook}` failed (RuntimeError: it broke)"}
    assert summary["metrics"]["calibration_error"] > 0, "the others go on"
    assert capsys.readouterr().err.count("metric.mine") == 1


def test_a_name_that_cannot_be(compose: Compose) -> None:
    cfg = compose("strategy=simplecil", f"{OWN}.Failing", "+metric.mine.hook=name")
    assert "cannot be the name" in Experiment(cfg, loggers=[]).run()["undefined"]["mine"]


def test_of_two_numbers_of_one_name_the_second_has_its_metrics(compose: Compose) -> None:
    more = [
        "+metric.fine._target_=cl.evaluation.calibration.CalibrationError",
        "+metric.fine.bins=100",
    ]
    summary = Experiment(compose("strategy=simplecil", "metric=[ece]", *more), loggers=[]).run()
    assert summary["metrics"].keys() == {"calibration_error", "fine_calibration_error"}


def test_what_is_no_metric(compose: Compose) -> None:
    with pytest.raises(ConfigurationError, match=r"metric\.mine.*no Metric"):
        Experiment(compose("strategy=simplecil", f"{OWN}.NoMetric"), loggers=[])


def test_a_stored_metric_of_strangers_is_not_built(compose: Compose) -> None:
    killed = Experiment(compose("strategy=simplecil", COUNTING, FOUR), loggers=[Kill()])
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    with pytest.raises(ConfigurationError, match=r"trust=\[tests\]"):
        Experiment.resume(killed.folder, loggers=[])
    changes = {"metric": {"mine": {"_target_": "tests.cl.evaluation.own.Failing"}}}
    with pytest.raises(ConfigurationError, match=r"cannot go on with another metric\.mine"):
        Experiment.resume(killed.folder, loggers=[], trust=["tests"], changes=changes)


ENTROPY = '''
import torch
from torch import Tensor

from cl.data import Batch
from cl.evaluation import Context, Metric, Undefined


class Entropy(Metric):
    """Mean entropy of the answers, in nats, divided by `scale`."""

    needs = "outputs"

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def before(self, context: Context) -> None:
        self.values: list[Tensor] = []

    def batch(self, task: int, batch: Batch, outputs: Tensor) -> None:
        self.values.append(torch.distributions.Categorical(logits=outputs).entropy())

    def after(self):
        return {"entropy": torch.cat(self.values).mean() / self.scale}
'''


def test_one_file_and_a_yaml_are_enough(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_entropy.py").write_text(ENTROPY)
    folder = tmp_path / "conf" / "metric"
    folder.mkdir(parents=True)
    yaml = "# @package metric.entropy\n_target_: my_entropy.Entropy\nscale: 0.5\n"
    (folder / "entropy.yaml").write_text(yaml)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["metric=[ece,entropy]", "metric.entropy.scale=2"]
    check(["--config-dir", str(folder.parent), *words])
    cfg = compose("strategy=simplecil", f"hydra.searchpath=[file://{folder.parent}]", *words)
    numbers = Experiment(cfg, loggers=[]).run()["metrics"]
    assert numbers.keys() == {"calibration_error", "entropy"}
    assert 0 < numbers["entropy"] <= np.log(4) / 2
