from __future__ import annotations

import torch

from cl.ops.orthogonal import orthonormal_beside


def test_new_rows_are_orthonormal_and_orthogonal_to_the_old_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(5, 12, generator=generator)
    new = orthonormal_beside(old, 4, generator)
    torch.testing.assert_close(new @ new.T, torch.eye(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(new @ old.T, torch.zeros(4, 5), rtol=0, atol=1e-5)
    assert not torch.equal(new, orthonormal_beside(old, 4, generator)), "they are random"


def test_without_room_they_are_orthogonal_to_one_another_only() -> None:
    generator = torch.Generator().manual_seed(0)
    new = orthonormal_beside(torch.randn(5, 8, generator=generator), 4, generator)
    torch.testing.assert_close(new @ new.T, torch.eye(4), rtol=0, atol=1e-5)
