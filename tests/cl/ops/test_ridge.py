from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from cl.ops.ridge import ridge, ridge_errors


def problem(rows: int, width: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    return H, torch.nn.functional.one_hot(labels, classes).double()


def test_the_smallest_case_by_hand() -> None:
    """H = I, Y = I, λ = 1:  W = ½ I."""
    identity = torch.eye(2)
    torch.testing.assert_close(ridge(identity, identity, 1.0), 0.5 * identity.double())


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("rows", [12, 40])
def test_it_is_what_scikit_learn_finds(rows: int, strength: float) -> None:
    H, Y = problem(rows, 20)
    expected = Ridge(alpha=strength, fit_intercept=False).fit(H.numpy(), Y.numpy()).coef_.T
    np.testing.assert_allclose(ridge(H.T @ H, H.T @ Y, strength), expected, rtol=1e-8, atol=1e-10)


def test_a_singular_system_gets_the_solution_of_least_norm() -> None:
    """Five rows in twenty dimensions and λ far below rounding: what lstsq gives."""
    H, Y = problem(5, 20)
    gram = 1e12 * H.T @ H
    expected = torch.linalg.pinv(H) @ Y
    torch.testing.assert_close(ridge(gram, 1e12 * H.T @ Y, 0.0), expected, rtol=1e-6, atol=1e-8)


def test_twice_the_data_with_twice_the_strength_changes_nothing() -> None:
    H, Y = problem(30, 10)
    G, Q = H.T @ H, H.T @ Y
    torch.testing.assert_close(ridge(2 * G, 2 * Q, 6.0), ridge(G, Q, 3.0))


def test_a_strong_ridge_points_along_the_class_sums() -> None:
    H, Y = problem(30, 10)
    Q = H.T @ Y
    torch.testing.assert_close(1e9 * ridge(H.T @ H, Q, 1e9), Q, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [12, 40])
def test_one_decomposition_gives_the_errors_of_all_strengths(rows: int) -> None:
    """In the primal (more rows than columns) and in the dual form."""
    H, Y = problem(rows, 20)
    held, wanted = problem(9, 20, seed=1)
    strengths = [1e-2, 1.0, 1e3]
    expected = [
        float((held @ ridge(H.T @ H, H.T @ Y, strength) - wanted).square().mean())
        for strength in strengths
    ]
    found = ridge_errors(H.float(), Y, held.float(), wanted, strengths)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
