"""Springs against the sum that they stand for."""

from __future__ import annotations

import pytest
import torch

from cl.ops.anchors import Springs


def test_many_springs_in_the_memory_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    springs, tasks = Springs(), []
    for _ in range(5):
        weights = {"w": torch.randn(3, 4, generator=generator)}
        stiffness = {"w": torch.rand(3, 4, generator=generator)}
        springs.add(weights, stiffness)
        tasks.append((weights["w"], stiffness["w"]))
    theta = torch.randn(3, 4, generator=generator, requires_grad=True)
    expected = sum((0.5 * F * (theta - anchor) ** 2).sum() for anchor, F in tasks)
    energy = springs.energy({"w": theta})
    assert energy.item() == pytest.approx(float(expected), rel=1e-5)
    (gradient,) = torch.autograd.grad(energy, theta)
    (reference,) = torch.autograd.grad(expected, theta)
    torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6)
    assert springs.stiffness["w"].numel() == 12, "memory does not grow with the tasks"


def test_zero_at_the_anchor_with_zero_gradient() -> None:
    weights = {"w": torch.randn(5, requires_grad=True)}
    springs = Springs()
    springs.add(weights, {"w": torch.ones(5)})
    energy = springs.energy(weights)
    assert energy.item() == 0.0
    (gradient,) = torch.autograd.grad(energy, weights["w"])
    assert not gradient.any()


def test_new_rows_are_free() -> None:
    springs = Springs()
    springs.add({"w": torch.zeros(2, 3)}, {"w": torch.ones(2, 3)})
    grown = torch.full((4, 3), 7.0)
    grown[:2] = 0
    assert springs.energy({"w": grown}).item() == 0.0
    springs.add({"w": grown}, {"w": torch.ones(4, 3)})
    assert springs.energy({"w": grown}).item() == 0.0
    assert springs.energy({"w": grown + 1}).item() == pytest.approx(0.5 * (2 * 6 + 6))


def test_two_quadratics_meet_where_the_formula_says() -> None:
    """argmin ½(w − w_B)² + λF/2 (w − w_A)² = (w_B + λF w_A) / (1 + λF); here 0 for ±1 and λF = 1."""
    springs = Springs()
    springs.add({"w": torch.ones(1)}, {"w": torch.ones(1)})
    w = torch.ones(1, requires_grad=True)
    optimiser = torch.optim.SGD([w], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        (0.5 * (w + 1) ** 2 + springs.energy({"w": w})).sum().backward()
        optimiser.step()
    assert w.item() == pytest.approx(0.0, abs=1e-6)


def test_moved_springs_are_tied_to_the_last_weights_with_the_decayed_sum() -> None:
    """S ← γ S + F: with γ = 0 only the last task, with γ = 1 the sum; one anchor, the last one."""
    for decay, expected in ((0.0, 3.0), (1.0, 5.0), (0.5, 4.0)):
        springs = Springs()
        springs.move({"w": torch.zeros(2)}, {"w": torch.full((2,), 2.0)}, decay)
        springs.move({"w": torch.ones(3)}, {"w": torch.full((3,), 3.0)}, decay)
        assert springs.stiffness["w"].tolist() == [expected, expected, 3.0]
        assert springs.energy({"w": torch.ones(3)}).item() == 0.0
        assert springs.energy({"w": torch.tensor([2.0, 1, 1])}).item() == expected / 2


def test_force_is_the_gradient_of_the_energy() -> None:
    springs, generator = Springs(), torch.Generator().manual_seed(0)
    for _ in range(2):
        weights = {"w": torch.randn(2, 3, generator=generator)}
        springs.add(weights, {"w": torch.rand(2, 3, generator=generator)})
    theta = torch.randn(4, 3, generator=generator, requires_grad=True)
    (gradient,) = torch.autograd.grad(springs.energy({"w": theta}), theta)
    torch.testing.assert_close(springs.force("w", theta.detach()), gradient)
    assert not springs.force("unknown", theta.detach()).any()
