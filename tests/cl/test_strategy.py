"""What a method is told, and what a plugin may change."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from cl.data import ArrayDataset, Batch
from cl.errors import ConfigurationError
from cl.experiment import Experiment
from cl.learner import Learner
from cl.objective import Classification
from cl.strategy import LossOfBatch, ParameterGroup, Plugin, Progress, Strategy
from cl.stream import Experience, Stream
from tests.conftest import Compose, toy_images, toy_stream

THIS = "tests.cl.test_strategy"


def learner_of(compose: Compose, strategy: str, *overrides: str) -> Learner:
    cfg = compose("strategy=custom", f"strategy._target_={THIS}.{strategy}", *overrides)
    return Learner(cfg, toy_stream().info)


def with_plugin(compose: Compose, plugin: str, *overrides: str) -> Learner:
    named = [f"+plugin.mine._target_={THIS}.{plugin}", *overrides]
    return Learner(compose("strategy=naive", *named), toy_stream().info)


class Watching(Strategy):
    """Notes where the training is at every hook."""

    notes: ClassVar[list[tuple[str, Progress]]] = []

    def note(self, hook: str) -> None:
        Watching.notes.append((hook, self.run.progress))

    def before_experience(self, experience: Experience) -> None:
        super().before_experience(experience)
        self.note("before_experience")

    def order(self, positions: Tensor, data: ArrayDataset) -> Tensor:
        self.note("order")
        return positions

    def before_step(self, batch: Batch) -> None:
        self.note("before_step")

    def after_step(self) -> None:
        assert self.run.optimizer is not None
        moments = [self.run.optimizer.state[p] for p in self.run.model.parameters()]
        assert any("exp_avg" in moment for moment in moments)

    def after_experience(self, experience: Experience) -> None:
        assert self.run.optimizer is None
        self.note("after_experience")


def test_a_hook_knows_experience_epoch_and_step(compose: Compose) -> None:
    Watching.notes.clear()
    learner = learner_of(compose, "Watching")
    losses = []
    for index in range(2):
        learner.learn(
            toy_stream().experience(index), on_step=lambda now: losses.append(float(now.loss))
        )
    second = [note for note in Watching.notes if note[1].experience == 1]
    steps = [(now.epoch, now.step) for hook, now in second if hook == "before_step"]
    assert steps == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert [now.epoch for hook, now in second if hook == "order"] == [0, 1]
    assert all((n.epochs, n.steps) == (2, 6) for hook, n in second if hook == "before_step")
    assert second[0] == ("before_experience", second[0][1])
    assert (second[0][1].step, second[0][1].steps) == (0, 0)
    end = second[-1][1]
    assert (end.epoch, end.step, end.images, float(end.loss)) == (2, 6, 48, losses[-1])
    last = [float(now.loss) for hook, now in second if hook == "before_step"]
    assert np.isnan(last[0])
    assert last[1:] == losses[6:-1], "the loss of the step before"


class Twice(Plugin):
    """Each pass shows half of the images, each twice in a row."""

    def order(self, positions: Tensor, data: ArrayDataset) -> Tensor:
        assert len(positions) == len(data)
        return positions[: len(positions) // 2].repeat_interleave(2)


class Short(Plugin):
    """Shows fewer images than there are, which is not allowed."""

    def order(self, positions: Tensor, data: ArrayDataset) -> Tensor:
        return positions[:-1]


class SeesBatches(Plugin):
    """Notes the positions of each batch."""

    seen: ClassVar[list[list[int]]] = []

    def before_step(self, batch: Batch) -> None:
        SeesBatches.seen.append(batch.positions.tolist())


def test_the_order_of_a_pass_is_a_hook(compose: Compose) -> None:
    SeesBatches.seen.clear()
    learner = with_plugin(compose, "Twice", f"+plugin.eye._target_={THIS}.SeesBatches")
    learner.learn(toy_stream().experience(0))
    for batch in SeesBatches.seen:
        assert batch[::2] == batch[1::2]
    first, second = (
        [place for batch in SeesBatches.seen[i : i + 3] for place in batch] for i in (0, 3)
    )
    assert len(set(first)) == 12
    assert first != second


def test_an_order_of_another_length_is_refused(compose: Compose) -> None:
    with pytest.raises(ConfigurationError, match="must be 24 positions"):
        with_plugin(compose, "Short").learn(toy_stream().experience(0))


def test_a_changed_order_goes_on_in_the_middle_of_a_pass(compose: Compose, tmp_path: Any) -> None:
    whole, stopped, resumed = (with_plugin(compose, "Twice") for _ in range(3))
    whole.learn(toy_stream().experience(0))

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            stopped.save_midway(tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.learn_experience(toy_stream().experience(0), stop)
    resumed.learn_experience(toy_stream().experience(0), midway=tmp_path)
    for name, tensor in whole.state.state_dict().items():
        assert torch.equal(tensor, resumed.state.state_dict()[name]), name


class OnlyFirstClass(Plugin):
    def training_data(self, data: ArrayDataset, experience: Experience) -> ArrayDataset:
        return data.subset(np.flatnonzero(data.targets == experience.classes[0]))


class FrozenBackbone(Plugin):
    def parameter_groups(self, groups: list[ParameterGroup]) -> list[ParameterGroup]:
        backbone = {id(p) for p in self.run.model.backbone.parameters()}
        return [{**g, "params": [p for p in g["params"] if id(p) not in backbone]} for g in groups]


class Halved(Plugin):
    """Halves the loss of the strategy, and adds one."""

    def around(self, loss: LossOfBatch, batch: Batch) -> Tensor:
        return loss(batch) / 2

    def loss(self, batch: Batch) -> float:
        return 1.0


class Reversed(Plugin):
    def answer(self, inputs: Tensor, logits: Tensor) -> Tensor:
        assert len(inputs) == len(logits)
        return -logits


def test_a_plugin_chooses_the_training_data(compose: Compose) -> None:
    steps = with_plugin(compose, "OnlyFirstClass").learn(toy_stream().experience(0))
    assert steps == 2 * 2, "twelve images in batches of eight, two passes"


def test_a_plugin_filters_what_is_trained(compose: Compose) -> None:
    learner = with_plugin(compose, "FrozenBackbone")
    before = {n: p.clone() for n, p in learner.model.backbone.named_parameters()}
    learner.learn(toy_stream().experience(0))
    assert all(torch.equal(p, before[n]) for n, p in learner.model.backbone.named_parameters())
    assert learner.trainable_parameters == 2 * (learner.model.features + 1)


def test_plugins_wrap_the_loss_from_the_inside_out(compose: Compose) -> None:
    halves = [f"+plugin.{n}._target_={THIS}.Halved" for n in ("a", "b")]
    learner = Learner(compose("strategy=naive", *halves), toy_stream().info)
    learner.strategy.before_experience(toy_stream().experience(0))
    batch = next(learner.strategy.batches(toy_stream().experience(0)))
    alone = learner.strategy.loss(batch)
    assert learner.methods.loss(batch).item() == pytest.approx((alone.item() / 2 + 1) / 2 + 1)


def test_a_plugin_changes_the_answers(compose: Compose) -> None:
    plain, turned = (
        Learner(compose("strategy=naive"), toy_stream().info),
        with_plugin(compose, "Reversed"),
    )
    for learner in (plain, turned):
        learner.learn(toy_stream().experience(0))
    data = toy_stream().test[0]
    assert torch.equal(plain.logits(data), -turned.logits(data))


class Entropy(Strategy):
    """Test-time adaptation: the entropy of the model's own answers, which needs no labels."""

    def loss(self, batch: Batch) -> Tensor:
        logits = self.run.model(batch.images)
        return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()


def unlabelled_stream() -> Stream:
    """A task with labels, and one without."""
    train, test = toy_images(16, 2, 0), toy_images(8, 2, 1)
    hidden = ArrayDataset.unlabelled(train.images)
    return Stream("toy", "domain-incremental", (train, hidden), (test, test), ("a", "b"))


def test_a_loss_without_labels_learns_from_images_without_labels(compose: Compose) -> None:
    cfg = compose(
        "strategy=custom",
        f"strategy._target_={THIS}.Entropy",
        f"stream._target_={THIS}.unlabelled_stream",
    )
    experiment = Experiment(cfg, loggers=[])
    experiment.run()
    assert experiment.matrix.rows == 2


def test_classification_masks_grows_and_counts() -> None:
    head = torch.nn.Module()
    head.grow = lambda classes, generator: setattr(head, "classes", classes)
    experience = toy_stream().experience(1)
    for classes, mask in (("current", [-np.inf, -np.inf, 0, 0]), ("seen", [0, 0, 0, 0])):
        objective = Classification(classes)  # type: ignore[arg-type]
        objective.begin(head, experience, 0)  # type: ignore[arg-type]
        assert objective.mask.tolist() == mask
        assert head.classes == 4
    logits = torch.tensor([[9.0, 1.0, 2.0, 0.0], [9.0, 1.0, 0.0, 2.0]])
    right, within = objective.right(
        logits, torch.tensor([2, 0]), torch.tensor([[False, False, True, True]]).expand(2, -1)
    )
    assert (right.tolist(), within.tolist()) == ([0, 1], [1, 0])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([2, 0]))
    assert torch.equal(objective.loss(logits, torch.tensor([2, 0])), expected)
