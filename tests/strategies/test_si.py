"""SI against its path integral and against Avalanche's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.training.plugins import SynapticIntelligencePlugin as Reference
from torch import nn

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.strategy import Run
from strategies.si import SI
from tests.conftest import Compose, toy_stream


def attached(model: Any, **arguments: float) -> SI:
    model.head = SimpleNamespace(classes=0, grow=lambda classes, generator: None)
    strategy = SI(**arguments)
    strategy.run = Run(model)
    return strategy


def test_on_a_parabola_the_stiffness_is_half_its_curvature() -> None:
    """L = a/2 w² from w₀ to 0 in small steps: ω → a/2 w₀², so that Ω → a/2."""
    model: Any = nn.Module()
    model.w = nn.Parameter(torch.tensor([1.5]))
    strategy = attached(model, damping=1e-9)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
    experience = toy_stream().experience(0)
    strategy.before_experience(experience)
    for _ in range(20_000):
        optimiser.zero_grad()
        (4 / 2 * model.w**2).sum().backward()
        strategy.after_backward()
        optimiser.step()
        strategy.after_step()
    strategy.after_experience(experience)
    assert strategy.springs.stiffness["w"].item() == pytest.approx(2.0, rel=1e-3)


def copied(tensors: dict[str, Any]) -> None:
    """Avalanche's notes are views of the weights on the CPU, so that every Δθ would be zero: copy them."""
    for each in tensors.values():
        each.data = each.data.clone()


def both_observe_a_path(strength: float) -> tuple[SI, Any, list[Any]]:
    """Two tasks of the same SGD path; ours and Avalanche's bookkeeping after each, and its springs."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    strategy = attached(model, strength=strength, damping=1e-3)
    weights: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    names = ("old_theta", "new_theta", "grad", "trajectory", "cum_trajectory")
    followed: dict[str, Any] = {name: {} for name in names}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    paths = []
    for index in range(2):
        experience = toy_stream().experience(index)
        images, labels = torch.randn(32, 4), torch.randint(0, 3, (32,))
        strategy.before_experience(experience)
        Reference.create_syn_data(model, weights, followed, set())
        Reference.init_batch(model, weights, followed, set())
        copied(weights[0])
        for _ in range(20):
            Reference.pre_update(model, followed, set())
            copied(followed["old_theta"])
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            (loss + strategy.penalty()).backward()
            strategy.after_backward()
            optimiser.step()
            strategy.after_step()
            Reference.post_update(model, followed, set())
        theirs = {n: -v.data.clone() for n, v in followed["trajectory"].items()}
        paths.append(({n: p.clone() for n, p in strategy.path.items()}, theirs))
        strategy.after_experience(experience)
        Reference.update_ewc_data(model, weights, followed, 1e9, set(), 1, eps=1e-3)
    return strategy, weights, paths


def test_path_and_stiffness_are_avalanches_while_nothing_is_penalised() -> None:
    """With strength 0 both accumulate the same path; only its negative parts are treated differently."""
    strategy, weights, paths = both_observe_a_path(strength=0.0)
    for ours, theirs in paths:
        for name in ours:
            torch.testing.assert_close(ours[name].flatten(), theirs[name], rtol=1e-4, atol=1e-9)
    for name, stiffness in strategy.springs.stiffness.items():
        reference = weights[1][name].data
        positive = torch.stack([theirs[name] >= 0 for _, theirs in paths]).all(0)
        assert positive.any()
        torch.testing.assert_close(
            stiffness.flatten()[positive], reference[positive], rtol=1e-4, atol=1e-7
        )
        assert (stiffness.flatten() >= reference - 1e-6).all(), (
            "where it was negative, it counts as 0"
        )


def test_the_penalty_is_no_part_of_the_path_unlike_avalanches() -> None:
    """In the second task Avalanche's ω has the work of the spring as well; ours has not."""
    _, _, paths = both_observe_a_path(strength=5.0)
    (first, first_reference), (second, second_reference) = paths
    for name in first:
        torch.testing.assert_close(
            first[name].flatten(), first_reference[name], rtol=1e-4, atol=1e-9
        )
    difference = max(float((second[n].flatten() - second_reference[n]).abs().max()) for n in second)
    assert difference > 1e-3


def test_the_path_adds_up_to_the_fall_of_the_loss_without_the_penalty() -> None:
    """Σ_i ω_i ≈ L_task(start) − L_task(end) for small steps, also with a strong spring."""
    torch.manual_seed(0)
    model: Any = nn.Linear(4, 3)
    strategy = attached(model, strength=3.0)
    strategy.springs.move(dict(model.named_parameters()), {"weight": torch.rand(3, 4)})
    images, labels = torch.randn(32, 4), torch.randint(0, 3, (32,))
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    strategy.before_experience(toy_stream().experience(0))
    losses = []
    for _ in range(300):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        losses.append(loss.item())
        (loss + strategy.penalty()).backward()
        strategy.after_backward()
        optimiser.step()
        strategy.after_step()
    end = nn.functional.cross_entropy(model(images), labels).item()
    total = sum(float(path.sum()) for path in strategy.path.values())
    assert total == pytest.approx(losses[0] - end, rel=2e-3)


def test_penalty_and_its_gradient_are_zero_at_the_anchor(compose: Compose) -> None:
    stream = toy_stream()
    learner = Learner(compose("strategy=si"), stream.info)
    learner.learn(stream.experience(0))
    strategy = learner.strategy
    assert isinstance(strategy, SI)
    energy = torch.as_tensor(strategy.penalty())
    assert energy.item() == 0.0
    gradients = torch.autograd.grad(energy, list(learner.model.parameters()))
    assert not any(gradient.any() for gradient in gradients)
    assert any(stiffness.any() for _, stiffness in strategy.springs.stiffness.items())
    name = "backbone.blocks.0.mlp.fc1.weight"
    with torch.no_grad():
        learner.model.get_parameter(name).add_(0.01)
    expected = 1e5 * (strategy.springs.stiffness[name] * 1e-4).sum().item()
    assert torch.as_tensor(strategy.penalty()).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"strength": -1.0}, "strength=-1.0"), ({"damping": 0.0}, "damping=0.0")],
)
def test_values_out_of_range(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SI(**arguments)
