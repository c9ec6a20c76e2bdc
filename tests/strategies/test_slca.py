"""SLCA's known answers."""

from __future__ import annotations

import pytest
import torch

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.training import create_optimizer
from strategies.slca import SLCA
from tests.conftest import Compose, toy_stream

SMALL = ("strategy.alignment_samples=16", "strategy.alignment_epochs=2")


def taught(
    compose: Compose, *overrides: str, experiences: int = 2, tasks: int = 2, classes: int = 4
) -> Learner:
    stream = toy_stream(tasks, classes)
    learner = Learner(compose("strategy=slca", *SMALL, *overrides), stream.info)
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


def method(learner: Learner) -> SLCA:
    assert isinstance(learner.strategy, SLCA)
    return learner.strategy


def test_older_means_are_drawn_in(compose: Compose) -> None:
    strategy = method(taught(compose, experiences=4, tasks=4, classes=8))
    expected = torch.tensor([0.925, 0.95, 0.975, 1.0]).repeat_interleave(2)
    torch.testing.assert_close(strategy.mean_scale(3), expected)


def test_tasks_of_one_class_are_aligned_from_a_head_of_zeros(compose: Compose) -> None:
    """Cross-entropy over one class teaches nothing; the norm of zeros must not have an infinite gradient."""
    learner = taught(compose, experiences=4, tasks=4)
    assert not method(learner).trained_weight.any()
    assert (learner.model.head.weight.norm(dim=1) > 0).all()
    assert learner.model.head.weight.norm() < 100
    for test in toy_stream(4).test:
        assert learner.logits(test).isfinite().all()


def test_the_normalised_logits_are_the_formula_and_forget_the_scale(compose: Compose) -> None:
    strategy = method(taught(compose, experiences=0))
    strategy.tasks = torch.tensor([0, 0, 1])
    logits = torch.tensor([[3.0, 4.0, -1.0], [0.0, 1.0, 3.0]])
    expected = 10 * logits / torch.tensor([[3.0], [2.0]])
    torch.testing.assert_close(strategy.normalise(logits), expected)
    torch.testing.assert_close(strategy.normalise(3 * logits), expected)


def test_logits_of_zero_have_a_finite_gradient(compose: Compose) -> None:
    strategy = method(taught(compose, experiences=0))
    strategy.tasks = torch.tensor([0, 0, 1])
    logits = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    normalised = strategy.normalise(logits)
    torch.testing.assert_close(normalised, 10 * logits / torch.tensor([[2.5], [1.0]]))
    (gradient,) = torch.autograd.grad(normalised[:, 2].sum(), logits)
    torch.testing.assert_close(gradient[:, 2], torch.tensor([4.0, 10.0]))
    assert gradient.isfinite().all()


def test_the_first_experience_is_not_aligned(compose: Compose) -> None:
    learner = taught(compose, experiences=1)
    strategy = method(learner)
    assert torch.equal(learner.model.head.weight, strategy.trained_weight)
    assert "alignment" not in learner.logged


def test_alignment_changes_the_head_alone_and_is_undone_before_the_next_experience(
    compose: Compose,
) -> None:
    stream, learner = toy_stream(tasks=3), taught(compose, experiences=1, tasks=3)
    unaligned = taught(compose, "strategy.alignment_epochs=0", experiences=2, tasks=3)
    learner.learn(stream.experience(1))
    strategy = method(learner)
    for name, tensor in learner.model.backbone.state_dict().items():
        assert torch.equal(tensor, unaligned.model.backbone.state_dict()[name]), name
    assert torch.equal(unaligned.model.head.weight, strategy.trained_weight)
    assert not torch.equal(learner.model.head.weight, strategy.trained_weight)
    trained, bias = strategy.trained_weight.clone(), strategy.trained_bias.clone()
    strategy.before_experience(stream.experience(2))
    assert torch.equal(learner.model.head.weight[: len(trained)], trained)
    assert torch.equal(learner.model.head.bias[: len(bias)], bias)


def test_old_rows_keep_their_bits_in_training_despite_weight_decay(compose: Compose) -> None:
    learner = taught(compose, "trainer.weight_decay=0.1", experiences=1)
    before = method(learner).trained_weight.clone()
    learner.learn(toy_stream().experience(1))
    assert torch.equal(method(learner).trained_weight[:2], before)


def test_the_backbone_learns_a_hundred_times_slower(compose: Compose) -> None:
    learner = taught(compose, "trainer.lr=0.03")
    optimizer = create_optimizer(method(learner).parameter_groups(), learner.config)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.0003, 0.03])


def test_alignment_helps_the_old_classes(compose: Compose) -> None:
    stream = toy_stream()
    arguments = ("trainer.lr=0.05", "trainer.epochs=4", "backbone.pretrained=true")
    labels = torch.from_numpy(stream.test[0].targets)
    accuracy = []
    for epochs in (0, 5):
        learner = taught(compose, *arguments, f"strategy.alignment_epochs={epochs}")
        answers = learner.logits(stream.test[0]).argmax(1)
        accuracy.append(float((answers == labels).float().mean()))
    assert accuracy[1] >= accuracy[0]
    assert accuracy[1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"backbone_factor": -1.0}, "backbone_factor=-1.0"),
        ({"alignment_samples": 0}, "alignment_samples=0"),
    ],
)
def test_values_out_of_range(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SLCA(**arguments)  # type: ignore[arg-type]
