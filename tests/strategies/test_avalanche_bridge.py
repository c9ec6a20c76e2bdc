"""Avalanche's strategies through the bridge: they run, learn, repeat, and say what is wrong."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl.errors import ConfigurationError, DivergenceError
from cl.learner import Learner
from strategies.avalanche import RUNS, tensors_in
from tests.conftest import Compose, toy_images, toy_stream

ARGUMENTS: dict[str, dict[str, Any]] = {
    "AGEM": {"patterns_per_exp": 16, "sample_size": 16},
    "DER": {"mem_size": 40},
    "EWC": {"ewc_lambda": 0.1},
    "GDumb": {"mem_size": 40},
    "GEM": {"patterns_per_exp": 16},
    "GSS_greedy": {"mem_size": 48},
    "ICaRL": {"memory_size": 20, "fixed_memory": True},
    "LwF": {"alpha": 1.0, "temperature": 2.0},
    "MAS": {"lambda_reg": 0.01},
    "Replay": {"mem_size": 40},
    "SynapticIntelligence": {"si_lambda": 0.1},
}
REMEMBER = ("Cumulative", "DER", "GDumb", "GEM", "GSS_greedy", "ICaRL", "Replay")
STREAM = toy_stream(tasks=2, classes=4, images=96)


def make(compose: Compose, name: str, *overrides: str, **args: Any) -> Learner:
    cfg = compose(
        "strategy=avalanche",
        f"strategy.name={name}",
        "trainer.batch_size=16",
        "trainer.epochs=15",
        "trainer.lr=5e-3" if name == "MAS" else "trainer.lr=0.02",  # it refuses a loss of exactly 0
        *overrides,
        *(
            f"strategy.args.{key}={value}"
            for key, value in {**ARGUMENTS.get(name, {}), **args}.items()
        ),
    )
    return Learner(cfg, STREAM.info)


def learn(learner: Learner, experiences: int = 2) -> Learner:
    for index in range(experiences):
        learner.learn(STREAM.experience(index))
    return learner


def accuracy(learner: Learner, task: int) -> float:
    answers = learner.logits(STREAM.test[task]).argmax(1).numpy()
    return float((answers == STREAM.test[task].targets).mean())


@pytest.mark.parametrize("name", RUNS)
def test_it_runs_learns_and_repeats(compose: Compose, name: str) -> None:
    first, second = (learn(make(compose, name)) for _ in range(2))
    assert first.logits(STREAM.test[0]).shape == (24, 4)
    assert accuracy(first, 1) >= 0.75, "chance is 0.25"
    if name in REMEMBER:
        assert accuracy(first, 0) >= 0.4, "with its memory it still knows the first task"
    for task in (0, 1):
        assert torch.equal(first.logits(STREAM.test[task]), second.logits(STREAM.test[task]))
    assert first.stored_numbers == second.stored_numbers
    assert first.trainable_parameters > 1e6
    assert torch.isfinite(first.logged["loss"])


def test_another_seed_gives_another_result(compose: Compose) -> None:
    first, second = (learn(make(compose, "Replay", f"seed={seed}")) for seed in (0, 1))
    assert not torch.equal(first.logits(STREAM.test[0]), second.logits(STREAM.test[0]))


def test_naive_is_our_naive_where_the_order_does_not_matter(compose: Compose) -> None:
    """Whole-batch gradient descent, without momentum: both loops must take the same steps."""
    common = (
        "trainer.batch_size=64",
        "trainer.optimizer=sgd",
        "trainer.momentum=0",
        "trainer.epochs=4",
    )
    theirs = learn(make(compose, "Naive", *common))
    cfg = compose("strategy=naive", "strategy.classes=seen", *common, "trainer.lr=0.02")
    ours = learn(Learner(cfg, STREAM.info))
    ours_state, theirs_state = ours.model.state_dict(), theirs.model.state_dict()
    start = make(compose, "Naive").model.state_dict()
    for name, weight in ours_state.items():
        torch.testing.assert_close(theirs_state[name], weight, rtol=1e-4, atol=1e-5)
    moved = sum(
        float((ours_state[k] - start[k]).abs().sum())
        for k in start
        if k in ours_state and "head" not in k
    )
    assert moved > 1, "the test would say nothing if nothing had moved"


def test_the_schedule_is_followed(compose: Compose) -> None:
    """Whole batches again, so that only the learning rates could make a difference."""
    common = (
        "trainer.batch_size=64",
        "trainer.momentum=0",
        "trainer.schedule=cosine",
        "trainer.epochs=4",
    )
    theirs = learn(make(compose, "Naive", *common))
    cfg = compose(
        "strategy=naive",
        "strategy.classes=seen",
        "trainer.optimizer=sgd",
        "trainer.lr=0.02",
        *common,
    )
    ours = learn(Learner(cfg, STREAM.info)).model.state_dict()
    constant = learn(
        make(compose, "Naive", *common, "trainer.schedule=constant")
    ).model.state_dict()
    for name, weight in theirs.model.state_dict().items():
        torch.testing.assert_close(weight, ours[name], rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(constant[name], ours[name], atol=1e-3) for name in ours)


def test_icarl_answers_as_avalanche_s_own_model(compose: Compose) -> None:
    learner = learn(make(compose, "ICaRL"))
    images, _ = STREAM.test[0].take(np.arange(24))
    network = learner.strategy.running.model.eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    torch.testing.assert_close(learner.logits(STREAM.test[0]), expected, rtol=1e-4, atol=1e-5)


def test_gdumb_starts_from_the_first_weights_again(compose: Compose) -> None:
    """With a learning rate of zero, nothing but the initial model can be left after each task."""
    learner = make(compose, "GDumb", "trainer.lr=0", "trainer.epochs=1")
    before = {name: tensor.clone() for name, tensor in learner.model.backbone.state_dict().items()}
    learn(learner)
    for name, tensor in learner.model.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("name", ["Naive", "ICaRL"])
def test_a_saved_learner_predicts_but_does_not_pretend_to_go_on(
    compose: Compose, name: str, tmp_path: Path
) -> None:
    learner = learn(make(compose, name, "trainer.epochs=2"), 1)
    learner.save(tmp_path)
    opened = Learner.load(tmp_path)
    assert torch.equal(opened.logits(STREAM.test[0]), learner.logits(STREAM.test[0]))
    with pytest.raises(ConfigurationError, match="not go on learning"):
        opened.learn(STREAM.experience(1))


def test_what_avalanche_keeps_is_counted(compose: Compose) -> None:
    learner = make(compose, "Cumulative", "trainer.epochs=1", "trainer.momentum=0")
    learner.learn(STREAM.experience(0))
    first = learner.stored_numbers
    learner.learn(STREAM.experience(1))
    images, head = len(STREAM.train[1]) * 3 * 8 * 8, 2 * (learner.model.features + 1)
    assert images + head <= learner.stored_numbers - first <= images + head + 100


def test_tensors_are_found_wherever_they_are() -> None:
    class Holder:
        def __init__(self) -> None:
            self.own, self.hidden = torch.zeros(2), {"a": [torch.zeros(3), (np.zeros(4),)]}
            self.again, self.method = self.own, self.__init__  # type: ignore[misc]

    known = torch.zeros(5)
    holder = Holder()
    holder.hidden["b"] = [known]
    assert sorted(len(t) for t in tensors_in(holder, {id(known)})) == [2, 3, 4]


def test_the_images_are_copies(compose: Compose) -> None:
    data = toy_images(24, 2, 0)
    before = data.images.copy()
    learner = make(compose, "Replay", "trainer.augment=crop_flip", "trainer.epochs=1")
    learner.learn(STREAM.experience(0))
    assert np.array_equal(before, data.images)


def test_augmentation_reaches_the_training(compose: Compose) -> None:
    plain, augmented = (
        learn(make(compose, "Naive", f"trainer.augment={kind}", "trainer.epochs=1"), 1)
        for kind in ("none", "crop_flip")
    )
    assert not torch.equal(plain.logits(STREAM.test[0]), augmented.logits(STREAM.test[0]))


def test_mistakes(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean GDumb"):
        make(compose, "GDum")
    with pytest.raises(
        ConfigurationError, match=r"args\.mem_size: .*It has: patterns_per_exp, memory_strength"
    ):
        make(compose, "GEM", mem_size=3)
    with pytest.raises(ConfigurationError, match=r"it needs strategy\.args\.ewc_lambda=…"):
        make(compose, "EWC", ewc_lambda="null")
    with pytest.raises(ConfigurationError, match=r"trainer\.precision=32"):
        make(compose, "Naive", "trainer.precision=bf16")
    with pytest.raises(ConfigurationError, match="48 at least"):
        make(compose, "GSS_greedy", mem_size=47)
    import qpsolvers

    monkeypatch.setattr(qpsolvers, "available_solvers", [])
    with pytest.raises(ConfigurationError, match="pip install qpsolvers quadprog"):
        make(compose, "GEM")


def test_a_missing_package_is_named(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "avalanche.training", None)
    monkeypatch.setitem(sys.modules, "avalanche", None)
    with pytest.raises(ConfigurationError, match="pip install avalanche-lib"):
        make(compose, "Naive")


def test_classes_that_come_back_are_refused_by_icarl(compose: Compose) -> None:
    learner = learn(make(compose, "ICaRL", "trainer.epochs=1"), 1)
    again = dataclasses.replace(STREAM.experience(1), classes=(0, 2, 3))
    with pytest.raises(ConfigurationError, match="cannot see a class again"):
        learner.learn(again)


def test_a_loss_that_is_not_finite_stops_it(compose: Compose) -> None:
    with pytest.raises(DivergenceError, match=r"trainer\.lr"):
        learn(make(compose, "Naive", "trainer.lr=1e38"), 1)


def test_avalanche_is_imported_only_when_it_is_used() -> None:
    code = (
        "import sys, strategies.avalanche, cl.cli, cl.learner; sys.exit('avalanche' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
