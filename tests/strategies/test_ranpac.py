"""RanPAC's known answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from cl.errors import ConfigurationError, PalimpsestError
from cl.learner import Learner
from cl.models.heads import RidgeHead
from cl.ops.ridge import ridge
from strategies.ranpac import STRENGTHS, RanPAC
from tests.conftest import Compose, toy_stream


def taught(
    compose: Compose, *overrides: str, tasks: int = 2, classes: int = 4, order: Sequence[int] = ()
) -> Learner:
    stream = toy_stream(tasks, classes)
    small = ("strategy.projection=32", "strategy.bottleneck=0")
    learner = Learner(compose("strategy=ranpac", *small, *overrides), stream.info)
    for index in order or range(tasks):
        learner.learn(stream.experience(index))
    return learner


def head(learner: Learner) -> RidgeHead:
    assert isinstance(learner.model.head, RidgeHead)
    return learner.model.head


def test_the_sums_do_not_depend_on_the_split(compose: Compose) -> None:
    whole = head(taught(compose, tasks=1))
    for tasks in (2, 4):
        parts = head(taught(compose, "trainer.evaluation_batch_size=5", tasks=tasks))
        torch.testing.assert_close(parts.gram, whole.gram, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(parts.cross, whole.cross, rtol=1e-4, atol=1e-6)
        assert torch.equal(parts.projection, whole.projection)


@pytest.mark.parametrize("bottleneck", [0, 4])
def test_the_order_of_the_later_tasks_does_not_matter(compose: Compose, bottleneck: int) -> None:
    """The labels say which class is which. λ is chosen on the last task, so here it is the same by hand."""
    arguments = (f"strategy.bottleneck={bottleneck}", "trainer.lr=0.1")
    one, other = (
        head(taught(compose, *arguments, tasks=4, classes=8, order=order))
        for order in ((0, 1, 2, 3), (0, 3, 2, 1))
    )
    for each in (one, other):
        each.solve(1.0)
    assert torch.equal(one.projection, other.projection)
    for name in ("gram", "cross", "weight"):
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5, msg=name
        )


def test_the_projection_keeps_its_bits_although_the_head_is_away_in_phase_1(
    compose: Compose,
) -> None:
    stream = toy_stream()
    cfg = compose("strategy=ranpac", "strategy.projection=32", "strategy.bottleneck=4")
    learner = Learner(cfg, stream.info)
    drawn = head(learner).projection.clone()
    assert drawn.std() == pytest.approx(1.0, abs=0.05)
    for index in range(2):
        learner.learn(stream.experience(index))
        assert torch.equal(head(learner).projection, drawn)


def test_the_weight_is_the_joint_ridge_solution(compose: Compose) -> None:
    learner = taught(compose, tasks=4)
    head_, stream = head(learner), toy_stream(tasks=1)
    batch = next(learner.strategy.batches(stream.experience(0)))
    with torch.no_grad():
        H = torch.relu(learner.model.backbone(batch.images) @ head_.projection)
    Y = torch.nn.functional.one_hot(batch.labels, 4).double()
    strength = float(learner.logged["ridge_strength"])
    assert any(strength == pytest.approx(value) for value in STRENGTHS)
    expected = ridge(H.double().T @ H.double(), H.double().T @ Y, strength)
    torch.testing.assert_close(head_.weight.double(), expected, rtol=1e-3, atol=1e-5)


def test_scores_are_inner_products_and_not_cosines(compose: Compose) -> None:
    learner = taught(compose)
    head_ = head(learner)
    features = torch.randn(3, 192)
    expected = torch.relu(features @ head_.projection) @ head_.weight
    torch.testing.assert_close(head_(features), expected)
    torch.testing.assert_close(head_(2 * features), 2 * expected)


def test_the_strength_is_chosen_on_held_out_images(compose: Compose) -> None:
    """Labels that have nothing to do with the images ask for a strong ridge, clear ones do not."""
    strategy = taught(compose, "strategy.projection=0").strategy
    assert isinstance(strategy, RanPAC)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 4, (400,), generator=generator)
    features = torch.randn(400, 192, generator=generator)
    clear = 0.01 * features + torch.nn.functional.pad(torch.eye(4)[noise], (0, 188))
    assert strategy.choose_strength(features, noise, 0) >= 100.0
    assert strategy.choose_strength(clear, noise, 0) <= 1.0
    assert strategy.choose_strength(features[:3], noise[:3], 0) in STRENGTHS


def test_the_first_session_trains_adapters_and_the_later_ones_nothing(compose: Compose) -> None:
    stream = toy_stream()
    cfg = compose("strategy=ranpac", "strategy.projection=32", "strategy.bottleneck=4")
    learner = Learner(cfg, stream.info)
    before = {name: tensor.clone() for name, tensor in learner.model.named_parameters()}
    assert learner.learn(stream.experience(0)) > 0
    after = {name: tensor.clone() for name, tensor in learner.model.named_parameters()}
    for name in before:
        assert torch.equal(after[name], before[name]) == (".adapter." not in name), name
    assert learner.learn(stream.experience(1)) == 0
    for name, tensor in learner.model.named_parameters():
        assert torch.equal(tensor, after[name]), name
    assert not any(parameter.numel() > 1 for parameter in learner.strategy.parameters())


def test_without_projection_it_is_linear_and_can_be_exported(
    compose: Compose, tmp_path: Path
) -> None:
    linear = taught(compose, "strategy.projection=0")
    linear.export(tmp_path / "weights.safetensors")
    weight = head(linear).linear_state()["weight"]
    features = torch.randn(3, 192)
    torch.testing.assert_close(head(linear)(features), features @ weight.T)
    with pytest.raises(PalimpsestError, match="projection=0"):
        taught(compose).export(tmp_path / "none.safetensors")


@pytest.mark.parametrize("argument", ["projection", "bottleneck"])
def test_values_out_of_range(argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{argument}=-1"):
        RanPAC(**{argument: -1})
