from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cl.data import ArrayDataset, Order, Transform, Union, batches
from cl.data.cache import DIGEST_BYTES, FeatureCache
from cl.data.loading import Images
from tests.conftest import toy_images

HALF = (0.5, 0.5, 0.5)
TRANSFORM = Transform(8, HALF, HALF)
CPU = torch.device("cpu")


class Counting:
    """A network that counts the images that it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.flatten(1)[:, :5] * 2


def images(data: ArrayDataset | Union, positions: list[int]) -> Images:
    return Images(data, np.array(positions), TRANSFORM, CPU)


def test_each_image_is_computed_once_whatever_the_batch() -> None:
    cache, network, data = FeatureCache(1e6), Counting(), toy_images(20, 2, 0)
    expected = Counting()(images(data, list(range(20))).tensor)
    for positions in ([0, 1, 2, 3], [3, 2, 7], [7, 3, 0], [5]):
        found = cache.features("key", images(data, positions), network)
        assert torch.equal(found, expected[positions])
    assert network.seen == 4 + 3 + 1, (
        "the single new image of a batch of three is computed three times over"
    )
    assert (cache.computed, cache.reused) == (6, 5)


def test_the_same_image_in_another_data_set_is_known() -> None:
    cache, network, data = FeatureCache(1e6), Counting(), toy_images(20, 2, 0)
    cache.features("key", images(data, [4, 5]), network)
    copied = ArrayDataset.of(data.images[::-1].copy(), data.labels[::-1].copy())
    cache.features("key", images(copied, [15, 14]), network)
    assert network.seen == 2
    cache.features("other weights", images(data, [4, 5]), network)
    assert network.seen == 4


def test_one_other_pixel_is_another_image() -> None:
    cache, network, data = FeatureCache(1e6), Counting(), toy_images(4, 2, 0)
    cache.features("key", images(data, [0, 1]), network)
    changed = data.images.copy()
    changed[0, 7, 7, 2] ^= 1
    cache.features("key", images(ArrayDataset.of(changed, data.labels), [0, 1]), network)
    assert network.seen == 2 + 2


def test_the_budget_is_kept() -> None:
    row = 5 * 4
    cache, network, data = FeatureCache(10 * row), Counting(), toy_images(20, 2, 0)
    for _ in range(2):
        for positions in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]):
            cache.features("key", images(data, positions), network)
    assert cache.memory == 8 * row
    assert network.seen == 12 + 4


def test_another_process_finds_what_was_written(tmp_path: Path) -> None:
    data, network = toy_images(20, 2, 0), Counting()
    first = FeatureCache(1e6, tmp_path, 1e6)
    expected = first.features("key", images(data, [0, 1, 2]), network)
    first.flush()
    first.features("key", images(data, [3]), network)
    first.flush()
    second = FeatureCache(1e6, tmp_path, 1e6)
    assert torch.equal(
        second.features("key", images(data, [2, 1, 0, 3]), network)[:3], expected.flip(0)
    )
    assert second.computed == 0


def test_a_damaged_file_is_left_out(tmp_path: Path) -> None:
    data, network = toy_images(20, 2, 0), Counting()
    first = FeatureCache(1e6, tmp_path, 1e6)
    first.features("key", images(data, [0, 1, 2]), network)
    first.flush()
    (file,) = tmp_path.glob("*/*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    second = FeatureCache(1e6, tmp_path, 1e6)
    second.features("key", images(data, [0, 1, 2]), network)
    assert second.computed == 3


def test_the_folder_does_not_outgrow_its_limit(tmp_path: Path) -> None:
    cache, data = FeatureCache(1e6, tmp_path, 1000), toy_images(20, 2, 0)
    for start in range(0, 20, 4):
        cache.features("key", images(data, list(range(start, start + 4))), Counting())
        cache.flush()
    sizes = [file.stat().st_size for file in tmp_path.glob("*/*.safetensors")]
    assert sizes
    assert sum(sizes) <= 1000


def test_images_stand_for_their_tensor() -> None:
    data = toy_images(6, 2, 0)
    lazy = images(data, [1, 2, 3])
    plain = TRANSFORM(torch.from_numpy(data.images[1:4]))
    assert "pixels" not in vars(lazy), "nothing is read before somebody looks"
    assert len(lazy) == 3
    assert lazy.shape == plain.shape
    assert torch.equal(lazy[1:], plain[1:])
    layer = torch.nn.Conv2d(3, 2, 3)
    assert torch.equal(layer(lazy), layer(plain))
    assert torch.equal(torch.cat([lazy, plain]), torch.cat([plain, plain]))  # type: ignore[list-item]
    assert torch.equal(plain + lazy, plain + plain)


def test_a_union_is_its_parts_one_after_the_other() -> None:
    parts = [toy_images(5, 2, 0), toy_images(3, 2, 1), toy_images(4, 2, 2)]
    union = Union(parts)
    together = np.concatenate([part.images for part in parts])
    found = list(batches(union, TRANSFORM, 4, CPU))
    pixels = torch.cat([torch.as_tensor(batch.images[:]) for batch in found])
    assert torch.equal(pixels, TRANSFORM(torch.from_numpy(together)))
    labels = torch.cat([batch.labels for batch in found]).tolist()
    assert labels == [label for part in parts for label in part.targets]
    assert union.part_of(np.arange(12)).tolist() == [0] * 5 + [1] * 3 + [2] * 4


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
@pytest.mark.parametrize("taken", [0, 1, 4, 5, 7])
def test_an_order_goes_on_where_it_was(taken: int, augmentation: str) -> None:
    """Two passes of five batches, left after so many batches and gone on with in a new order."""
    data = toy_images(18, 2, 0)

    def passes(order: Order, many: int) -> list[Tensor]:
        found = []
        for _ in range(many):
            for batch in batches(data, TRANSFORM, 4, CPU, order=order, augmentation=augmentation):
                found.append((torch.as_tensor(batch.images[:]), order.state()))
        return found  # type: ignore[return-value]

    def order() -> Order:
        return Order(torch.Generator().manual_seed(3))

    whole = passes(order(), 2)
    assert len(whole) == 10
    resumed = order()
    if taken:
        resumed.load(whole[taken - 1][1])
    rest = passes(resumed, 2 - (taken - 1) // 5 if taken else 2)
    assert len(rest) == 10 - taken
    for (expected, _), (found, _) in zip(whole[taken:], rest, strict=True):
        assert torch.equal(expected, found)


def test_digests_have_their_size() -> None:
    data = toy_images(3, 2, 0)
    assert [len(d) for d in FeatureCache(1).digests.of(images(data, [0, 2]))] == [DIGEST_BYTES] * 2
