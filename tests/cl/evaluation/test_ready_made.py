"""Each ready-made metric against a formula, on answers whose result is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cl.data import Batch
from cl.errors import ConfigurationError, DataError
from cl.evaluation import Context, Metric, Undefined
from cl.evaluation.calibration import CalibrationError
from cl.evaluation.continual import gap, largest_moves, summary
from cl.evaluation.drift import linear_cka, spread
from cl.evaluation.over_time import Intransigence, NegativeFlips, OnlineAccuracy, ZeroShot
from cl.evaluation.per_class import ConfusionMatrix, ForgettingOfClasses, RecencyBias, TopK
from cl.experiment import Experiment
from cl.matrix import AccuracyMatrix, Cell
from tests.conftest import Compose, toy_images

Answered = dict[int, tuple[Sequence[int], Tensor]]
"""By task: the labels, and the outputs."""


def told(
    metric: Metric, answered: Answered, experience: int = 0, seen: Sequence[int] = (4,)
) -> dict[str, object]:
    """What the metric gives after one pass, in two batches a task."""
    names = [f"class {label}" for label in range(seen[experience])]
    metric.context = Context(experience, len(seen), seen, names)
    metric.before(metric.context)
    for task, (labels, outputs) in answered.items():
        for part in (slice(0, 1), slice(1, None)):
            target = torch.tensor(labels)[part]
            batch = Batch(torch.empty(len(target), 0), target, np.arange(len(labels))[part])
            metric.batch(task, batch, outputs[part])
    return dict(metric.after())


def one_hot(answers: Sequence[int], classes: int = 4) -> Tensor:
    return 9 * torch.eye(classes)[torch.tensor(answers)]


def is_undefined(value: object, reason: str) -> bool:
    return isinstance(value, Undefined) and reason in value.reason


def test_calibration_error_is_the_weighted_gap_of_each_bin() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, labels = (
        2 * torch.randn(200, 4, generator=generator),
        torch.randint(4, (200,), generator=generator),
    )
    shares = outputs.double().softmax(1).numpy()
    confidence, right = shares.max(1), shares.argmax(1) == labels.numpy()
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = told(CalibrationError(10), {0: (labels.tolist(), outputs)})
    assert found == {"calibration_error": pytest.approx(expected, abs=1e-9)}
    sure = told(CalibrationError(), {0: ([0, 1], 99 * torch.eye(2))})
    assert sure["calibration_error"] == pytest.approx(0, abs=1e-9)
    assert is_undefined(told(CalibrationError(), {})["calibration_error"], "no image")


def test_the_confusion_matrix_counts_what_is_taken_for_what() -> None:
    metric = ConfusionMatrix(each=True)
    labels, answers = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 2, 2, 2]
    found = told(metric, {0: (labels, one_hot(answers))})
    assert metric.counts.tolist() == [[3, 1, 0, 0], [0, 0, 2, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert found["mean_class_accuracy"] == pytest.approx((0.75 + 0 + 1) / 3)
    assert found["worst_class_accuracy"] == 0
    assert found["largest_confusion"] == pytest.approx(2 / 3)
    assert [found[f"class_{label}_accuracy"] for label in range(3)] == [0.75, 0, 1]
    assert is_undefined(found["class_3_accuracy"], "no image of it")
    right = told(ConfusionMatrix(), {0: ([0, 1], one_hot([0, 1]))})
    assert is_undefined(right["largest_confusion"], "no answer is wrong")
    assert right.keys() == {"mean_class_accuracy", "worst_class_accuracy", "largest_confusion"}


def test_top_k() -> None:
    outputs = torch.arange(40.0).view(4, 10).flip(1)  # class 0 is the highest, then 1, 2 …
    found = told(TopK(3), {0: ([0, 2, 3, 9], outputs)}, seen=(10,))
    assert found == {"top3_accuracy": 0.5}
    assert is_undefined(
        told(TopK(), {0: ([0], one_hot([0]))})["top5_accuracy"], "more than 5 classes"
    )


def test_recency_bias_is_of_old_images_and_the_newest_classes() -> None:
    answered = {0: ([0, 0, 1, 1], one_hot([2, 0, 3, 0])), 1: ([2, 3], one_hot([2, 3]))}
    assert told(RecencyBias(), answered, 1, (2, 4)) == {"recency_bias": 0.5}
    assert told(RecencyBias(), answered, 2, (2, 4, 4)) == {"recency_bias": 0.5}, (
        "nothing newer came"
    )
    assert is_undefined(
        told(RecencyBias(), answered, 0, (4,))["recency_bias"], "earlier experience"
    )


def test_forgetting_of_a_named_set() -> None:
    metric = ForgettingOfClasses(["class 1", 2], "animals")
    seen = (3, 3, 3)
    first = told(metric, {0: ([0, 1, 2, 2], one_hot([3, 1, 2, 2]))}, 0, seen)
    assert first["animals_accuracy"] == 1
    assert is_undefined(first["animals_forgetting"], "earlier experience")
    second = told(metric, {0: ([0, 1, 2, 2], one_hot([0, 1, 0, 0]))}, 1, seen)
    assert second["animals_forgetting"] == pytest.approx(2 / 3)
    third = told(metric, {0: ([1, 2], one_hot([1, 2]))}, 2, seen)
    assert third == {"animals_accuracy": 1, "animals_forgetting": 0}
    with pytest.raises(ConfigurationError, match="Did you mean class 0"):
        told(ForgettingOfClasses(["class 00"]), {}, 0, (3,))
    none = told(ForgettingOfClasses(["class 00"]), {}, 0, (3, 4))
    assert is_undefined(none["named_accuracy"], "none of these classes")


def test_negative_flips_are_right_before_and_wrong_now() -> None:
    metric = NegativeFlips()
    first = told(metric, {0: ([0, 0, 1, 1], one_hot([0, 0, 1, 0]))}, 0, (2, 4))
    assert is_undefined(first["negative_flip_rate"], "two tasks")
    later = {0: ([0, 0, 1, 1], one_hot([0, 2, 2, 1])), 1: ([2, 3], one_hot([0, 0]))}
    found = told(metric, later, 1, (2, 4))
    assert found == {"negative_flip_rate": 0.5, "positive_flip_rate": 0.25}


def test_online_accuracy_is_over_all_images_so_far() -> None:
    metric = OnlineAccuracy()
    told(metric, {0: ([0, 1], one_hot([0, 0]))})
    found = told(metric, {1: ([0, 1, 2, -1], one_hot([0, 1, 2, 0]))})
    assert found == {"online_accuracy": 0.8, "online_accuracy_of_experience": 1}
    assert is_undefined(told(OnlineAccuracy(), {})["online_accuracy"], "no image was answered")


def test_mtil_is_computed_from_the_upper_triangle_too() -> None:
    R = np.array([[0.75, 0.5, 0.25], [0.5, 1.0, 0.75], [0.25, 0.5, 1.0]])
    metric = ZeroShot()
    for row, shares in enumerate(R):
        answered = {
            task: ([1, 1, 1, 1], one_hot([int(i < 4 * share) for i in range(4)]))
            for task, share in enumerate(shares)
        }
        found = told(metric, answered, row, (4, 4, 4))
        if row == 0:
            assert found["zero_shot_accuracy"] == pytest.approx(0.375)
            assert is_undefined(found["mtil_transfer"], "whole stream")
    assert found["zero_shot_accuracy"] == pytest.approx(np.mean([0.5, 0.25, 0.75]))
    assert found["mtil_transfer"] == pytest.approx(np.mean([0.5, np.mean([0.25, 0.75])]))
    assert found["mtil_average"] == pytest.approx(R.mean())
    assert found["mtil_last"] == pytest.approx(R[-1].mean())


def test_zero_shot_needs_outputs_for_the_classes_to_come() -> None:
    metric = ZeroShot()
    told(metric, {0: ([0], one_hot([0], 2)), 1: ([2], one_hot([0], 2))}, 0, (2, 4))
    found = told(metric, {0: ([0], one_hot([0])), 1: ([2], one_hot([2]))}, 1, (2, 4))
    for name in ("zero_shot_accuracy", "mtil_transfer", "mtil_average"):
        assert is_undefined(found[name], "outputs for the classes to come")
    assert found["mtil_last"] == 1


def test_intransigence_against_a_joint_run(tmp_path: Path) -> None:
    joint = AccuracyMatrix([Cell(0, 0, 4, 4, 4), Cell(1, 0, 4, 4, 4), Cell(1, 1, 4, 3, 4)])
    joint.write(tmp_path / "accuracy_matrix.csv")
    metric = Intransigence(str(tmp_path))
    told(metric, {0: ([0, 0, 0, 0], one_hot([0, 0, 0, 1]))}, 0, (2, 4))
    answered = {0: ([0, 0, 0, 0], one_hot([1, 1, 1, 1])), 1: ([2, 2, 2, 2], one_hot([2, 0, 0, 0]))}
    assert told(metric, answered, 1, (2, 4)) == {"intransigence": pytest.approx((0.25 + 0.5) / 2)}
    with pytest.raises(ConfigurationError, match="2 experiences, this one 3"):
        told(metric, {}, 0, (2, 4, 6))
    with pytest.raises(ConfigurationError, match="a run on the same stream"):
        told(metric, {0: ([0], one_hot([0]))}, 0, (2, 4))
    with pytest.raises(DataError, match="missing"):
        Intransigence(str(tmp_path / "nowhere"))


def test_linear_cka_knows_neither_rotation_nor_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    assert linear_cka(X, 3 * X @ rotation + 1) == pytest.approx(1)
    Y = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    K, L = ((part - part.mean(0)) @ (part - part.mean(0)).T for part in (X, Y))
    expected = (K * L).sum() / (K.norm() * L.norm())  # by Gram matrices, as in the paper
    assert linear_cka(X, Y) == pytest.approx(float(expected))
    assert linear_cka(X, torch.ones(50, 2)) == 1


def test_a_sample_has_all_classes_and_is_always_the_same() -> None:
    sample = spread(toy_images(40, 4, 0), 8)
    assert sorted(sample.targets.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(spread(sample, 100)) == 8


def test_moves_within_a_window() -> None:
    curve = np.array([0.9, 0.8, 0.6, 0.7, 0.2, 0.9])
    assert largest_moves(curve, 2) == pytest.approx((0.5, 0.7))
    assert largest_moves(curve, 3) == pytest.approx((0.5, 0.7))
    assert largest_moves(curve, 5) == pytest.approx((0.7, 0.7))
    assert largest_moves(curve[:1], 5) == (0, 0)


def test_a_gap_is_below_both_ends() -> None:
    before = np.array([0.1, 0.9])
    assert gap(np.array([0.5, 0.3, 0.8]), before) == pytest.approx(0.5)
    assert gap(np.array([0.95, 0.92]), before) == 0
    assert gap(np.array([0.5, 0.3]), before) == 0, "what does not come back is forgetting"


def test_continual_evaluation_by_hand() -> None:
    nan = np.nan
    curves = np.array([[0.2, nan], [0.9, nan], [0.4, 0.5], [0.6, 0.7], [0.8, 1.0]])
    experiences = np.array([0, 0, 1, 1, 1])
    minimum, worst, fall, rise, stability = summary(curves, experiences, 3)
    assert minimum == pytest.approx(0.4)
    assert worst == pytest.approx(1.0 / 2 + 0.4 / 2)
    assert fall == pytest.approx((0.5 + 0) / 2)
    assert rise == pytest.approx((0.7 + 0.5) / 2)
    assert stability == pytest.approx(0.8 - 0.4)
    alone = summary(curves[:2, :1], experiences[:2], 3)
    assert is_undefined(alone[0], "two tasks")
    assert is_undefined(alone[4], "two tasks")
    assert alone[1:4] == [0.9, 0, pytest.approx(0.7)]


MANY = (
    "metric=[confusion,top5,recency_bias,forgetting_of,negative_flips,online,zero_shot,cka_drift,"
    "linear_probe,continual]"
)
NAMED = "metric.forgetting_of.classes=[class 0]"


def test_all_of_them_in_a_run(compose: Compose) -> None:
    small = [
        "evaluation.when=[after,before]",
        "metric.continual.every=1",
        "+stream.tasks=3",
        "+stream.classes=6",
        "trainer.lr=0.01",
    ]
    experiment = Experiment(compose("strategy=naive", MANY, NAMED, *small, "logger=[files]"))
    found = experiment.run()
    numbers, reasons = found["metrics"], found["undefined"]
    cells = experiment.matrix.row(2)
    assert numbers["top5_accuracy"] >= found["average_accuracy"]
    counts = [cell.correct / cell.images for cell in cells]
    assert numbers["mean_class_accuracy"] == pytest.approx(np.mean(counts))
    assert numbers["mtil_last"] == pytest.approx(np.mean(counts))
    before = {name for name in numbers if name.startswith("before_")}
    assert "before_recency_bias" in before
    assert not any("flip" in name or "drift" in name or "mtil" in name for name in before)
    assert 0 < numbers["cka_drift"] < 1, "naive fine-tuning moves the features"
    assert 0.5 <= numbers["probe_accuracy"] <= 1
    assert reasons.keys() == {
        *("zero_shot_accuracy", "mtil_transfer", "mtil_average", "before_top5_accuracy")
    }
    events = [
        json.loads(line) for line in (experiment.folder / "metrics.jsonl").read_text().splitlines()
    ]
    steps = [event for event in events if "metrics.sampled_accuracy" in event]
    assert len(steps) == 3 * 4, "two epochs of 16 images in batches of 8"
    assert steps[-1]["metrics.sampled_accuracy"] == pytest.approx(np.mean(counts))
    lowest = [event["metrics.lowest_sampled_accuracy"] for event in steps]
    assert numbers["minimum_accuracy"] >= min(lowest)
    assert "what was measured every few steps" in (experiment.folder / "report.html").read_text()


def test_a_frozen_backbone_does_not_drift(compose: Compose) -> None:
    found = Experiment(compose("strategy=simplecil", MANY, NAMED), loggers=[]).run()
    assert found["metrics"]["cka_drift"] == pytest.approx(0, abs=1e-6)
    assert found["metrics"]["probe_drift"] == 0
    assert "takes no steps" in found["undefined"]["online_accuracy"]
    assert "takes no steps" in found["undefined"]["minimum_accuracy"]


def test_what_must_be_given_is_asked_for(compose: Compose) -> None:
    for name, key in (("intransigence", "joint"), ("forgetting_of", "classes")):
        cfg = compose("strategy=simplecil", f"metric=[{name}]")
        with pytest.raises(ConfigurationError, match=rf"give metric\.{name}\.{key}=…"):
            Experiment(cfg, loggers=[])


def test_zero_shot_on_domains(compose: Compose) -> None:
    cfg = compose(
        "strategy=naive",
        "metric=[zero_shot]",
        "stream._target_=tests.cl.evaluation.test_ready_made.domains",
    )
    experiment = Experiment(cfg, loggers=[])
    found = experiment.run()["metrics"]
    ahead = experiment.matrix.row(0)[1].accuracy  # the matrix looks one task ahead
    assert found["zero_shot_accuracy"] == found["mtil_transfer"] == ahead
    R = experiment.matrix.values()
    assert found["mtil_average"] == pytest.approx(np.mean(R))
    assert found["mtil_last"] == pytest.approx(np.mean(R[1]))


def domains() -> object:
    """Two domains of the same classes: as they are, and inverted."""
    from cl.data import ArrayDataset
    from cl.stream import Stream

    train, test = toy_images(24, 4, 0), toy_images(12, 4, 1)
    sets = [
        tuple(
            ArrayDataset.of(255 - d.images if inverted else d.images, d.labels)
            for inverted in (False, True)
        )
        for d in (train, test)
    ]
    return Stream("domains", "domain-incremental", *sets, ("a", "b", "c", "d"))
