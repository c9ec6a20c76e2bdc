"""The references: linear probe, cumulative and joint training."""

from __future__ import annotations

import pytest
import torch

from cl.errors import ConfigurationError
from cl.learner import Learner
from strategies.frozen import Frozen
from tests.conftest import Compose, toy_stream


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
    with pytest.raises(ConfigurationError, match="classes=all"):
        Frozen("all")  # type: ignore[arg-type]
