from __future__ import annotations

import pytest
import torch

from cl.ops.subspaces import (
    complement,
    extend_basis,
    input_output_similarity,
    into_null_space,
    residual_directions,
    retained_shares,
    row_space_overlap,
    without_block,
    without_span,
)


def test_overlap_of_known_subspaces() -> None:
    x, y, z = torch.eye(3)
    assert row_space_overlap(torch.stack([x, y]), z[None]).item() == 0.0
    assert row_space_overlap(torch.stack([x, y]), torch.stack([y, z])).item() == pytest.approx(0.5)
    assert row_space_overlap(torch.stack([x, y]), (x + z)[None]).item() == pytest.approx(0.5)


def test_overlap_does_not_change_with_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    old, new = (
        torch.randn(2, 5, 20, generator=generator),
        torch.randn(2, 3, 20, generator=generator),
    )
    assert row_space_overlap(old, new).item() == pytest.approx(
        row_space_overlap(9 * old, 1e-3 * new).item()
    )


def test_nothing_old_means_no_overlap() -> None:
    assert row_space_overlap(torch.zeros(2, 0, 20), torch.randn(2, 3, 20)).item() == 0.0


def test_removing_a_block_and_removing_both_sides() -> None:
    """W = diag(3, 2, 1), k = 1, an update of ones: one entry goes, or a row and a column."""
    e1, ones = torch.eye(3)[:, :1], torch.ones(3, 3)
    assert torch.equal(without_block(ones, e1, e1), ones - e1 @ e1.T)
    both = without_span(without_span(ones, e1).T, e1).T
    assert torch.equal(both, torch.tensor([[0.0, 0, 0], [0, 1, 1], [0, 1, 1]]))


def test_what_is_left_is_orthogonal_and_the_rest_lies_in_the_span() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(7, 3).double()).Q
    matrix = torch.randn(7, 4).double()
    left = without_span(matrix, basis)
    assert (basis.T @ left).abs().max() < 1e-12
    torch.testing.assert_close(matrix - left, basis @ basis.T @ matrix)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (torch.eye(2), 1.0),
        (-torch.eye(2), -1.0),
        (torch.tensor([[0.0, -1.0], [1.0, 0.0]]), 0.0),
    ],
)
def test_similarity_of_input_and_output(weight: torch.Tensor, expected: float) -> None:
    inputs = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        input_output_similarity(inputs, weight), torch.full((5, 3), expected), rtol=0, atol=1e-6
    )


def test_similarity_of_a_layer_that_is_not_square_looks_at_the_first_entries() -> None:
    tall = torch.cat([torch.eye(2), torch.randn(3, 2)])
    wide = torch.cat([torch.eye(2), torch.zeros(2, 3)], dim=1)
    torch.testing.assert_close(input_output_similarity(torch.randn(4, 2), tall), torch.ones(4))
    torch.testing.assert_close(input_output_similarity(torch.randn(4, 5), wide), torch.ones(4))


def test_shares_follow_the_importance_and_stay_at_most_one() -> None:
    shares = retained_shares(torch.tensor([1.0, 0.5]), lowest=0.1, target=0.8)
    torch.testing.assert_close(shares, torch.tensor([1.0, 0.1 + 0.7 * 2 / 3]))
    shares = retained_shares(torch.tensor([1.0, 0.5]), lowest=0.0, target=0.5)
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3]))
    shares = retained_shares(torch.tensor([1.0, 0.5, -0.5]), lowest=0.1, target=0.8)
    torch.testing.assert_close(shares, torch.tensor([1.0, 0.8, 0.1]), msg="the mean of 1, ½ and 0")
    shares = retained_shares(torch.tensor([0.6, -3.0]), lowest=0.2, target=0.4)
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.2]), msg="negative counts as none")
    shares = retained_shares(torch.tensor([-1.0, 0.0]), lowest=0.1, target=0.8)
    torch.testing.assert_close(shares, torch.tensor([0.8, 0.8]))


@pytest.mark.parametrize("width", [0, 3, 7])
def test_the_complement_projects_onto_what_the_basis_leaves(width: int) -> None:
    basis = torch.linalg.qr(torch.randn(7, 7).double()).Q[:, :width]
    outside = complement(basis)
    eye = torch.eye(7).double()
    torch.testing.assert_close(outside.T @ outside, torch.eye(7 - width).double())
    torch.testing.assert_close(basis @ basis.T, eye - outside @ outside.T, rtol=0, atol=1e-12)


def test_residual_directions_by_hand() -> None:
    H = torch.tensor([9.0, 4, 1, 0, 0, 0]).diag().double()
    directions, values = residual_directions(H, torch.eye(6).double()[:, :1])
    torch.testing.assert_close(directions[:, :2].abs(), torch.eye(6).double()[:, 1:3])
    torch.testing.assert_close(values[:3], torch.tensor([4.0, 1, 0]).double())


def test_residual_directions_are_those_of_the_projected_matrix_and_stay_outside() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(8, 3).double()).Q
    x = torch.randn(8, 4).double()  # of rank 4: two of the five directions outside are noise
    directions, values = residual_directions(x @ x.T, basis)
    U, expected, _ = torch.linalg.svd(without_span(x @ x.T, basis))
    torch.testing.assert_close(values[:4], expected[:4])
    torch.testing.assert_close(
        directions[:, :4] @ directions[:, :4].T, U[:, :4] @ U[:, :4].T, rtol=0, atol=1e-8
    )
    assert directions.shape == (8, 5)
    assert (basis.T @ directions).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("coverage", "count"), [(0.0, 1), (0.6, 1), (0.65, 2), (0.95, 2), (0.99, 3), (1.0, 3)]
)
def test_a_basis_grows_until_it_covers_enough(coverage: float, count: int) -> None:
    """Squared values 64, 35 and 1: shares 0.64, 0.99 and 1."""
    matrix = torch.tensor([8.0, 35**0.5, 1.0, 0.0]).diag().double()
    basis = extend_basis(torch.zeros(4, 0).double(), matrix, coverage)
    if coverage == 0.99:  # on the edge, one rounding decides
        assert basis.shape[1] in (2, 3)
    else:
        assert basis.shape == (4, count)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]).double())


def test_a_basis_that_covers_enough_stays_and_another_gains_the_strongest_direction() -> None:
    matrix = torch.tensor([8.0, 35**0.5, 1.0, 0.0]).diag().double()
    e = torch.eye(4).double()
    assert torch.equal(extend_basis(e[:, :2], matrix, 0.95), e[:, :2])
    grown = extend_basis(e[:, 3:], matrix, 0.5)
    torch.testing.assert_close(grown.abs(), e[:, [3, 0]])
    assert extend_basis(e, matrix, 1.0).shape == (4, 4)


def test_rows_turned_into_the_null_space_keep_their_length() -> None:
    torch.manual_seed(0)
    old, rows = torch.randn(2, 3, 9), torch.randn(2, 4, 9)
    turned = into_null_space(rows, old)
    assert (old @ turned.mT).abs().max() < 1e-5
    torch.testing.assert_close(turned.norm(dim=-1), rows.norm(dim=-1))
    inside = into_null_space(turned, old)
    torch.testing.assert_close(inside, turned, msg="rows that are there already stay")


def test_keeping_the_basis_or_its_complement_gives_the_same_projection() -> None:
    """The official code of InfLoRA stores the complement C, d × (d − k), where k > d/2, and shrinks it."""
    torch.manual_seed(0)
    Q = torch.linalg.qr(torch.randn(6, 6).double()).Q
    M, C = Q[:, :4], Q[:, 4:]
    x = torch.randn(6, 9).double()
    H, coverage = x @ x.T, 0.95
    total = H.square().sum()

    U, values, _ = torch.linalg.svd(C @ C.T @ H)
    left, removed = values.square().sum() / total, 0
    while left >= 1 - coverage:
        left -= values[removed] ** 2 / total
        removed += 1
    assert removed == 1, "one of the two directions left is taken"
    smaller = torch.linalg.svd(C - U[:, :removed] @ U[:, :removed].T @ C).U[:, : 2 - removed]

    larger = extend_basis(M, H, coverage)
    assert larger.shape == (6, 5)
    torch.testing.assert_close(
        larger @ larger.T, torch.eye(6).double() - smaller @ smaller.T, rtol=0, atol=1e-10
    )
