"""The references: linear probe, cumulative and joint training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cl.data import ArrayDataset
from cl.errors import ConfigurationError
from cl.learner import Learner
from strategies.frozen import Frozen
from strategies.joint import Joint
from strategies.naive import Naive
from tests.conftest import Compose, toy_images, toy_stream


def taught(
    compose: Compose, *overrides: str, experiences: int = 2, tasks: int = 2, classes: int = 4
) -> Learner:
    stream = toy_stream(tasks, classes)
    learner = Learner(compose(*overrides), stream.info)
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


def assert_same_model(first: Learner, second: Learner) -> None:
    theirs = second.model.state_dict()
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("strategy", ["cumulative", "joint"])
def test_on_one_task_it_is_naive_fine_tuning_bit_for_bit(compose: Compose, strategy: str) -> None:
    naive = taught(compose, "strategy=naive", experiences=1)
    assert_same_model(taught(compose, f"strategy={strategy}", experiences=1), naive)


def test_joint_does_not_remember_what_it_was_trained_to_before(compose: Compose) -> None:
    """The model after the first experience is thrown away; only its images are kept."""
    stream = toy_stream()
    learner, disturbed = (taught(compose, "strategy=joint", experiences=1) for _ in range(2))
    with torch.no_grad():
        for parameter in disturbed.model.parameters():
            parameter.fill_(1.0)
    for each in (learner, disturbed):
        each.learn(stream.experience(1))
    assert_same_model(learner, disturbed)


def test_joint_training_does_not_depend_on_the_order_of_the_tasks(compose: Compose) -> None:
    """With all images in one batch the order of the classes cannot matter, up to rounding."""
    recipe = ("trainer.batch_size=64", "trainer.optimizer=sgd", "trainer.lr=1e-2")
    found = []
    for order in ([0, 1, 2, 3], [2, 3, 0, 1], [3, 1, 0, 2]):
        stream = toy_stream(order=order)
        learner = Learner(compose("strategy=joint", *recipe, "trainer.epochs=4"), stream.info)
        for index in range(2):
            learner.learn(stream.experience(index))
        columns = np.argsort(np.array(stream.class_names))
        data = ArrayDataset.unlabelled(toy_images(24, 4, 1).images)
        found.append(learner.logits(data)[:, columns])
    assert found[0].abs().max() > 0.1
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-5)


def test_the_joint_linear_probe_leaves_the_backbone_alone(compose: Compose) -> None:
    learner = taught(compose, "strategy=joint", "strategy.backbone_factor=0", experiences=0)
    before = {n: p.clone() for n, p in learner.model.backbone.named_parameters()}
    learner.learn(toy_stream().experience(0))
    for name, parameter in learner.model.backbone.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert learner.trainable_parameters == 2 * (learner.model.features + 1)
    assert learner.model.head.weight.any()
    assert isinstance(learner.strategy, Joint)
    assert len(learner.strategy.initial) == 0, "no copy of weights that never change"


def test_a_slow_backbone_moves_that_much_less(compose: Compose) -> None:
    """One step of plain gradient descent: the backbone moves by the factor, the head as before."""
    moved = []
    for factor in (1.0, 0.01):
        recipe = ("trainer.optimizer=sgd", "trainer.momentum=0", "trainer.batch_size=64")
        recipe += ("trainer.epochs=2", f"strategy.backbone_factor={factor}", "trainer.lr=0.1")
        learner = taught(compose, "strategy=naive", *recipe, experiences=0)
        start = learner.model.get_parameter("backbone.norm.bias").detach().clone()
        learner.learn(toy_stream().experience(0))
        moved.append((learner.model.get_parameter("backbone.norm.bias").detach() - start).norm())
    assert moved[1] / moved[0] == pytest.approx(0.01, rel=0.05)


def test_naive_adapters_train_adapters_only(compose: Compose) -> None:
    learner = taught(compose, "strategy=naive", "strategy.bottleneck=4", experiences=0)
    before = {n: p.clone() for n, p in learner.model.backbone.named_parameters()}
    for index in range(2):
        learner.learn(toy_stream().experience(index))
    changed = {
        name
        for name, parameter in learner.model.backbone.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert changed
    assert all(".adapter." in name for name in changed)
    blocks, width = 4, 192
    adapters = blocks * (2 * 4 * width + 4 + width)
    assert learner.trainable_parameters == adapters + 4 * (width + 1)


def test_cumulative_goes_on_from_the_present_weights(compose: Compose) -> None:
    cumulative = taught(compose, "strategy=cumulative", "trainer.lr=0.0")
    start = taught(compose, "strategy=naive", "trainer.lr=0.0")
    assert_same_model(cumulative, start)
    moved, joint = (taught(compose, f"strategy={name}") for name in ("cumulative", "joint"))
    weights = [
        each.model.get_parameter("backbone.blocks.0.mlp.fc1.weight") for each in (moved, joint)
    ]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("strategy", ["cumulative", "joint"])
def test_the_steps_run_over_everything_seen(compose: Compose, strategy: str) -> None:
    stream = toy_stream()
    learner = Learner(compose(f"strategy={strategy}"), stream.info)
    steps = [learner.learn(stream.experience(index)) for index in range(2)]
    assert steps == [6, 12], "24, then 48 images, 8 in a batch, twice"


@pytest.mark.parametrize("strategy", ["cumulative", "joint"])
def test_they_keep_the_first_task_that_naive_fine_tuning_forgets(
    compose: Compose, strategy: str
) -> None:
    stream = toy_stream()
    labels = torch.from_numpy(stream.test[0].targets)
    accuracy = {}
    for name in (strategy, "naive"):
        arguments = [f"strategy={name}", "trainer.lr=1e-3", "trainer.epochs=8"]
        arguments += ["strategy.classes=seen"] if name == "naive" else []
        answers = taught(compose, *arguments).logits(stream.test[0]).argmax(1)
        accuracy[name] = float((answers == labels).float().mean())
    assert accuracy["naive"] == 0.0
    assert accuracy[strategy] == 1.0


def test_the_frozen_head_leaves_the_first_task_as_it_was(compose: Compose) -> None:
    """Trained over the current classes only, the answers within the first task cannot change."""
    stream = toy_stream()
    learner = taught(compose, "strategy=frozen", "trainer.weight_decay=0.0", experiences=1)
    before = learner.logits(stream.test[0])
    learner.learn(stream.experience(1))
    after = learner.logits(stream.test[0])[:, :2]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", ["nano", "resnet18"])
def test_the_frozen_backbone_keeps_its_bits(compose: Compose, backbone: str) -> None:
    """Also the running averages of a convolutional network's batch norms."""
    arguments = ("strategy=frozen", f"backbone={backbone}", "backbone.pretrained=false")
    arguments += ("backbone.image_size=32",)
    learner = taught(compose, *arguments, experiences=0)
    before = {name: tensor.clone() for name, tensor in learner.model.backbone.state_dict().items()}
    learner.learn(toy_stream().experience(0))
    for name, tensor in learner.model.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert learner.trainable_parameters == 2 * (learner.model.features + 1)


def test_values_out_of_range() -> None:
    with pytest.raises(ConfigurationError, match="strategy=frozen"):
        Naive(backbone_factor=0.0)
    with pytest.raises(ConfigurationError, match="backbone_factor=-1"):
        Joint(-1.0)
    with pytest.raises(ConfigurationError, match="classes=all"):
        Frozen("all")  # type: ignore[arg-type]
