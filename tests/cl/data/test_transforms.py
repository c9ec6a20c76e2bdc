"""Batch-wise transforms against torchvision's, image by image."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from cl.data import AUGMENTATIONS, Transform, augment
from cl.data.transforms import crop, flip


def images(count: int = 6, side: int = 16, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, side, side, channels), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("size", [8, 16, 24])
def test_resize_and_standardise_as_torchvision(size: int) -> None:
    mean, std = (0.48, 0.45, 0.4), (0.22, 0.23, 0.24)
    result = Transform(size, mean, std)(images())
    reference = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize(size, v2.InterpolationMode.BICUBIC, antialias=True),
            v2.Lambda(lambda pixels: pixels.clamp(0, 1)),
            v2.Normalize(mean, std),
        ]
    )
    expected = torch.stack([reference(image.permute(2, 0, 1)) for image in images()])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_grey_images_become_three_equal_channels() -> None:
    result = Transform(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(images(channels=1))
    assert result.shape == (6, 3, 8, 8)
    assert torch.equal(result[:, 0], result[:, 2])


def test_each_crop_is_a_window_of_its_padded_image() -> None:
    batch = images(64)
    cropped = crop(batch, torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(batch, (0, 0, 2, 2, 2, 2))
    offsets = set()
    for image, result in zip(padded, cropped, strict=True):
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(image[top : top + 16, left : left + 16], result)
        ]
        assert len(found) == 1
        offsets |= set(found)
    assert len(offsets) > 15, "each image has its own offset, over the whole range"
    assert {0, 4} <= {top for top, _ in offsets}


def test_each_image_is_mirrored_or_not() -> None:
    batch = images(400)
    flipped = flip(batch, torch.Generator().manual_seed(1))
    mirrored = (flipped == batch.flip(2)).flatten(1).all(1)
    same = (flipped == batch).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 160 < mirrored.sum() < 240


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_depends_on_nothing_but_its_generator(name: str) -> None:
    torch.manual_seed(1)
    first = augment(images(), name, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    second = augment(images(), name, torch.Generator().manual_seed(5))
    assert torch.equal(first, second)
    assert first.dtype == torch.uint8
    assert torch.equal(images(), images()), "the images themselves are left alone"
