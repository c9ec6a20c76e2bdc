from __future__ import annotations

import pytest
import torch

from cl.ops.subspaces import row_space_overlap


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
