"""Thresholds on numbers by hand."""

from __future__ import annotations

import pytest
import torch

from cl.ops.thresholds import climbing_threshold, shrink_then_cut, soft_threshold

VALUES = torch.tensor([-1.0, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.5, 1.0])


def test_soft_threshold_by_hand() -> None:
    expected = torch.tensor([-0.8, -0.1, 0, 0, 0, 0, 0, 0.1, 0.3, 0.8])
    torch.testing.assert_close(soft_threshold(VALUES, 0.2), expected)
    assert torch.equal(soft_threshold(VALUES, 0.0), VALUES)


def test_soft_threshold_once_more_changes_all_but_zeros() -> None:
    once = soft_threshold(VALUES, 0.2)
    twice = soft_threshold(once, 0.2)
    torch.testing.assert_close(twice, torch.tensor([-0.6, 0, 0, 0, 0, 0, 0, 0, 0.1, 0.6]))
    assert torch.equal(twice == once, once == 0)


def test_soft_threshold_is_odd_and_never_lengthens_a_distance() -> None:
    x = torch.linspace(-2, 2, 401)
    y = soft_threshold(x, 0.35)
    torch.testing.assert_close(soft_threshold(-x, 0.35), -y)
    assert (y.diff() <= x.diff() + 1e-6).all()
    assert (y.diff() >= 0).all()


def test_the_official_operator_has_a_dead_zone_of_twice_the_threshold() -> None:
    """0.3 goes to 0 where soft thresholding gives 0.1; exactly the threshold stays."""
    values = torch.tensor([0.3, 0.5, 1.0, 0.25, -0.25, 0.125, -1.0])
    expected = torch.tensor([0.0, 0.25, 0.75, 0.25, -0.25, 0.0, -0.75])
    torch.testing.assert_close(shrink_then_cut(values, 0.25), expected)


@pytest.mark.parametrize(("start", "expected"), [(1.0, 0.7), (0.2, 0.0), (-1.0, -0.7)])
def test_gradient_and_threshold_in_turn_solve_the_lasso(start: float, expected: float) -> None:
    """min ½ (w − a)² + κ |w| with step 1 and κ = 0.3: soft(a, κ)."""
    w = torch.zeros(())
    for _ in range(5):
        w = soft_threshold(w - (w - start), 0.3)
    assert w.item() == pytest.approx(expected)


def test_the_climb_over_five_hundred_steps() -> None:
    """250 dense steps, then 5 steps per value up to 0.005; a gate loses 0.65 in all."""
    kappas = [0.005 * climbing_threshold(step, 500, 0.5, 50) for step in range(500)]
    assert not any(kappas[:251])
    assert kappas[251] == pytest.approx(0.005 / 49)
    assert kappas[-1] == pytest.approx(0.005)
    assert sum(kappas) == pytest.approx(0.650, abs=5e-4)
    values, counts = torch.tensor(kappas[251:]).unique(return_counts=True)
    assert len(values) == 49
    assert counts.tolist() == [4, *[5] * 47, 10]


@pytest.mark.parametrize("steps", [1, 2, 7, 60])
def test_a_short_run_climbs_too(steps: int) -> None:
    shares = [climbing_threshold(step, steps, 0.5, 50) for step in range(steps)]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert (max(shares) > 0) == (steps > 2)
