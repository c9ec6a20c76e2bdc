"""Batch-wise transforms against torchvision's, image by image."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from cl.data import AUGMENTATIONS, Transform, augment
from cl.data.transforms import (
    colour_jitter,
    crop,
    draw_boxes,
    draw_jitter,
    flip,
    resized_crop,
)


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


SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 32), (20, 33)])
def test_resized_crops_as_torchvision(height: int, width: int) -> None:
    """The same boxes, cut out and enlarged one by one."""
    batch = torch.randint(
        0, 256, (40, height, width, 3), generator=torch.Generator().manual_seed(0)
    )
    batch = batch.to(torch.uint8)
    result = resized_crop(batch, torch.Generator().manual_seed(4))
    boxes = draw_boxes(40, height, width, torch.Generator().manual_seed(4), SCALE, RATIO).tolist()
    assert len({tuple(box) for box in boxes}) > 30, "each image has its own box"
    for image, got, box in zip(batch, result, boxes, strict=True):
        pixels = image.permute(2, 0, 1).float()
        wanted = v2.functional.resized_crop(pixels, *box, [height, width]).permute(1, 2, 0)
        assert (got - wanted).abs().max() <= 0.501, "rounded"


def test_boxes_are_distributed_as_torchvision_s() -> None:
    """Area, ratio and place of 4,000 boxes of both have the same quantiles."""
    ours = draw_boxes(4000, 64, 48, torch.Generator().manual_seed(0), SCALE, RATIO).double()
    image = torch.zeros(3, 64, 48)
    torch.manual_seed(0)
    draw = v2.RandomResizedCrop.make_params
    reference = v2.RandomResizedCrop(8, SCALE, RATIO)
    drawn = [draw(reference, [image]) for _ in range(4000)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in drawn]).double()
    for box in (ours, theirs):
        assert (box >= torch.tensor([0, 0, 1, 1])).all()
        assert (box[:, :2] + box[:, 2:] <= torch.tensor([64, 48])).all()

    def looks(box: torch.Tensor) -> torch.Tensor:
        top, left, high, wide = box.T
        room = torch.stack([(top + 0.5) / (65 - high), (left + 0.5) / (49 - wide)])
        return torch.cat([torch.stack([high * wide / 64 / 48, (wide / high).log()]), room])

    at = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    difference = looks(ours).quantile(at, 1) - looks(theirs).quantile(at, 1)
    assert difference.abs().max() < 0.04
    assert looks(ours)[0].min() < 0.1
    assert looks(ours)[0].max() > 0.9


def test_a_box_that_never_fits_is_the_middle() -> None:
    """As torchvision: in a narrow image a whole area of ratio 1 cannot be had."""
    boxes = draw_boxes(3, 90, 30, torch.Generator().manual_seed(0), (1.0, 1.0), RATIO)
    image = torch.zeros(3, 90, 30)
    reference = v2.RandomResizedCrop(8, (1.0, 1.0), RATIO)
    wanted = reference.make_params([image])
    assert boxes.tolist() == [[wanted[key] for key in ("top", "left", "height", "width")]] * 3
    assert boxes[0].tolist() == [25, 0, 40, 30]


CHANGES = (
    v2.functional.adjust_brightness,
    v2.functional.adjust_contrast,
    v2.functional.adjust_saturation,
    v2.functional.adjust_hue,
)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", [(0.4, 0.4, 0.4, 0.1), (1.5, 1.5, 1.5, 0.5)])
def test_colours_change_as_torchvision_s(strength: tuple[float, ...], channels: int) -> None:
    """The same amounts in the same order, image by image."""
    batch = images(60, 12, channels)
    batch[0] = batch[0, :1, :1]  # one colour
    batch[1, ..., 1:] = batch[1, ..., :1]  # red above equal green and blue
    result = colour_jitter(batch, torch.Generator().manual_seed(2), *strength)
    amounts, order = draw_jitter(60, torch.Generator().manual_seed(2), *strength)
    assert len({tuple(each) for each in order.tolist()}) > 15, "of 24 orders"
    for image, got, amount, turns in zip(batch, result, amounts, order, strict=True):
        pixels = image.permute(2, 0, 1).float() / 255
        for turn in turns.tolist():
            pixels = CHANGES[turn](pixels, float(amount[turn]))
        wanted = 255 * pixels.permute(1, 2, 0)
        assert (got - wanted).abs().max() <= 0.51, "rounded"


def test_amounts_and_orders_are_even() -> None:
    amounts, order = draw_jitter(20000, torch.Generator().manual_seed(0), 0.4, 2.0, 0.2, 0.1)
    at = torch.linspace(0.1, 0.9, 9)
    for column, low, high in ((0, 0.6, 1.4), (2, 0.8, 1.2), (3, -0.1, 0.1)):
        quantiles = (amounts[:, column].quantile(at) - low) / (high - low)
        torch.testing.assert_close(quantiles, at, rtol=0, atol=0.015)
    assert (amounts[:, 1] == 0).float().mean() == pytest.approx(0.25, abs=0.02), "never below 0"
    codes, counts = torch.unique(order @ torch.tensor([64, 16, 4, 1]), return_counts=True)
    assert len(codes) == 24
    assert (counts - 20000 / 24).abs().max() < 5 * (20000 / 24) ** 0.5


def test_nothing_is_changed_by_amounts_of_nothing() -> None:
    batch = images(30)
    order = torch.Generator().manual_seed(0)
    same = colour_jitter(batch, order, 0, 0, 0, 0)
    assert (same.int() - batch.int()).abs().max() <= 1
    assert torch.equal(resized_crop(batch, order, (1, 1), (1, 1)), batch)
