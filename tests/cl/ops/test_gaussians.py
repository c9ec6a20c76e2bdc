from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl.ops.gaussians import ClassGaussians, align


def cloud(count: int, width: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixing + seed


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("cuts", [[60], [20, 40], [1, 58, 1]])
def test_the_moments_are_those_of_all_images_together(diagonal: bool, cuts: list[int]) -> None:
    """However they arrive; a second class does not disturb the first."""
    gaussians, data = ClassGaussians(4, diagonal), cloud(60, seed=3)
    for part in data.split(cuts):
        labels = torch.zeros(len(part), dtype=torch.int64)
        gaussians.update(torch.cat([part, cloud(5)]), F.pad(labels, (0, 5), value=1), 2)
    expected = data.var(0) if diagonal else torch.cov(data.T)
    assert gaussians.counts[0] == 60
    torch.testing.assert_close(gaussians.means[0], data.mean(0))
    torch.testing.assert_close(gaussians.spreads[0], expected.float(), rtol=1e-5, atol=1e-5)


def test_one_image_has_no_spread_and_can_still_be_sampled() -> None:
    gaussians = ClassGaussians(4, jitter=1e-4)
    gaussians.update(cloud(1), torch.zeros(1, dtype=torch.int64), 1)
    assert not gaussians.spreads.any()
    torch.testing.assert_close(gaussians.roots()[0], 0.01 * torch.eye(4))


def test_fewer_images_than_dimensions_can_be_sampled() -> None:
    gaussians = ClassGaussians(64, jitter=0.0)
    gaussians.update(100 * cloud(5, 64), torch.zeros(5, dtype=torch.int64), 1)
    assert gaussians.roots().isfinite().all()


@pytest.mark.parametrize("diagonal", [False, True])
def test_samples_have_the_moments_that_were_stored(diagonal: bool) -> None:
    gaussians = ClassGaussians(4, diagonal)
    data = torch.cat([cloud(200, seed=1), cloud(200, seed=2)])
    gaussians.update(data, torch.arange(2).repeat_interleave(200), 2)
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.5, 1.0])
    samples, labels = gaussians.sample(40_000, generator, gaussians.roots(), scale)
    for label in range(2):
        mine = samples[labels == label]
        assert len(mine) == 40_000
        mean = (scale[label] * gaussians.means[label]).float()
        torch.testing.assert_close(mine.mean(0), mean, rtol=0, atol=0.06)
        spread = mine.var(0) if diagonal else torch.cov(mine.T)
        size = float(gaussians.spreads[label].abs().max())
        torch.testing.assert_close(spread, gaussians.spreads[label], rtol=0, atol=0.05 * size)
    assert labels[:100].unique().tolist() == [0, 1], "shuffled"


def test_alignment_separates_two_gaussians_that_lie_apart() -> None:
    gaussians = ClassGaussians(2)
    data = torch.cat([cloud(100, 2, seed=0) - 8, cloud(100, 2, seed=0) + 8])
    gaussians.update(data, torch.arange(2).repeat_interleave(100), 2)
    head = nn.Linear(2, 2)
    torch.nn.init.zeros_(head.weight)
    generator = torch.Generator().manual_seed(0)
    align(
        head, gaussians, F.cross_entropy,
        epochs=5, samples=32, lr=0.05, weight_decay=0.0, generator=generator,
    )  # fmt: skip
    samples, labels = gaussians.sample(500, generator, gaussians.roots())
    assert float((head(samples).argmax(1) == labels).float().mean()) > 0.99
    assert all(p.grad is None for p in head.parameters())
