"""Several Gaussians per class: the centres, the samples, and what one centre amounts to."""

from __future__ import annotations

import torch
from torch import Tensor

from cl.ops.gaussians import ClassGaussians
from cl.ops.mixtures import ClassMixtures


def clouds(centres: list[float], counts: list[int], seed: int = 0) -> Tensor:
    """Narrow clouds along the diagonal of four dimensions."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        centre + 0.1 * torch.randn(count, 4, generator=generator, dtype=torch.float64)
        for centre, count in zip(centres, counts, strict=True)
    ]
    return torch.cat(parts)


def labels(count: int, label: int) -> Tensor:
    return torch.full((count,), label)


def test_each_cloud_of_a_class_gets_its_own_gaussian() -> None:
    """30 images around 0 and 90 around 5; another class comes later and changes nothing of it."""
    mixtures, data = ClassMixtures(4, centres=2), clouds([0.0, 5.0], [30, 90])
    mixtures.update(data, labels(120, 0), 1)
    before = {name: tensor.clone() for name, tensor in mixtures.state_dict().items()}
    mixtures.update(clouds([-3.0, 3.0], [50, 50], seed=1), labels(100, 1), 2)
    assert mixtures.owners.tolist() == [0, 0, 1, 1]
    for name, tensor in before.items():
        assert torch.equal(mixtures.state_dict()[name][:2], tensor), name
    small, large = sorted(range(2), key=lambda part: int(mixtures.parts.counts[part]))
    for part, rows in ((small, data[:30]), (large, data[30:])):
        assert mixtures.parts.counts[part] == len(rows)
        torch.testing.assert_close(mixtures.parts.means[part], rows.mean(0))
        torch.testing.assert_close(mixtures.parts.spreads[part], rows.var(0).float())
    torch.testing.assert_close(mixtures.means[0], data.mean(0))


def test_a_centre_is_drawn_as_often_as_it_has_images() -> None:
    mixtures = ClassMixtures(4, centres=2)
    mixtures.update(clouds([0.0, 5.0], [30, 90]), labels(120, 0), 1)
    mixtures.update(clouds([-3.0], [50], seed=1), labels(50, 1), 2)
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 2.0])
    samples, drawn = mixtures.sample(20_000, generator, mixtures.roots(), scale)
    assert drawn.bincount().tolist() == [20_000, 20_000]
    assert drawn[:100].unique().tolist() == [0, 1], "shuffled"
    first = samples[drawn == 0].mean(1)
    share = (first > 2.5).float().mean().item()
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / 20_000) ** 0.5
    assert (samples[drawn == 1].mean() + 6).abs() < 0.1, "the mean is scaled"
    near = samples[drawn == 0][first > 2.5]
    torch.testing.assert_close(near.std(0), torch.full((4,), 0.1), rtol=0, atol=0.015)


def test_with_one_centre_it_is_the_diagonal_gaussian() -> None:
    data, one, plain = clouds([1.0], [40]), ClassMixtures(4, 1), ClassGaussians(4, diagonal=True)
    for each in (one, plain):
        each.update(data, labels(40, 0), 1)
    torch.testing.assert_close(one.means, plain.means)
    torch.testing.assert_close(one.roots(), plain.roots())


def test_fewer_images_than_centres_and_equal_images() -> None:
    mixtures = ClassMixtures(4, centres=10)
    mixtures.update(clouds([0.0], [3]), labels(3, 0), 1)
    mixtures.update(torch.ones(5, 4), labels(5, 1), 2)
    assert mixtures.owners.tolist() == [0, 0, 0, 1]
    samples, _ = mixtures.sample(8, torch.Generator().manual_seed(0), mixtures.roots())
    assert samples.isfinite().all()
