"""The fifteen corruptions against their definitions."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cl.data.corruptions import CORRUPTIONS, SIZES, corrupt, nearest_size
from cl.data.distortions import box, disk, enlarge, plasma, smear
from cl.errors import ConfigurationError

everything = pytest.mark.parametrize("name", CORRUPTIONS)
SHOWN = (32, 64, 128)
"""One of each table; 128 is the smallest convenient side of the last."""
every_size = pytest.mark.parametrize("size", SHOWN)


def scenes(size: int, channels: int = 3, count: int = 3) -> np.ndarray:
    """Smooth images with an edge and some texture."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(7 * x + 3 * y + k) + (x + y > 1) for k in range(count * channels)]
    images = np.stack(waves).reshape(count, channels, size, size).transpose(0, 2, 3, 1)
    images += 0.2 * np.random.RandomState(0).standard_normal(images.shape)
    return np.clip(90 + 50 * images, 0, 255).astype(np.uint8)


def flat(value: int, size: int, count: int = 4) -> np.ndarray:
    return np.full((count, size, size, 3), value, np.uint8)


def changed(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    return corrupt(images, np.arange(len(images)), name, severity, seed)


def test_there_are_fifteen_with_five_strengths() -> None:
    assert len(CORRUPTIONS) == 15
    for _, *tables in CORRUPTIONS.values():
        assert [len(table) for table in tables] == [5] * len(SIZES)


@pytest.mark.parametrize(
    ("side", "nearest"),
    [
        (8, 32),
        (32, 32),
        (45, 32),
        (46, 64),
        (64, 64),
        (119, 64),
        (120, 224),
        (224, 224),
        (512, 224),
    ],
)
def test_strengths_are_those_of_the_nearest_size(side: int, nearest: int) -> None:
    assert SIZES[nearest_size(side)] == nearest


@pytest.mark.parametrize(("side", "deviation"), [(32, 0.06), (64, 0.08), (128, 0.12)])
def test_each_size_has_its_own_strength(side: int, deviation: float) -> None:
    noise = changed(flat(128, side, 16), "gaussian_noise", 2) / 255.0
    assert noise.std() == pytest.approx(deviation, rel=0.03)


def test_zoom_factors_are_those_that_numpy_gives_the_authors() -> None:
    """np.arange(1, 1.06, 0.01) has seven steps, 1.06 included; np.arange(1, 1.16, 0.01) stops at 1.15."""
    small, large = CORRUPTIONS["zoom_blur"][1], CORRUPTIONS["zoom_blur"][3]
    assert [len(factors) for factors in small] == [7, 12, 16, 21, 26]
    assert [len(factors) for factors in large] == [12, 16, 11, 13, 11]
    assert small[0][-1] == pytest.approx(1.06)
    assert large[4][-1] == pytest.approx(1.30)


@everything
@every_size
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_does_not_depend_on_its_batch(name: str, size: int, channels: int) -> None:
    images = scenes(size, channels)
    rows = np.array([11, 5, 8])
    together = corrupt(images, rows, name, 3)
    assert together.shape == images.shape
    assert together.dtype == np.uint8
    assert not np.array_equal(together, images)
    for position in (2, 0):
        alone = corrupt(images[[position]], rows[[position]], name, 3)
        assert np.array_equal(alone[0], together[position])


@everything
def test_random_ones_depend_on_row_and_seed(name: str) -> None:
    same = scenes(32, count=1)[[0, 0]]
    both = corrupt(same, np.array([0, 1]), name, 3)
    still = name in (
        "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"
    )  # fmt: skip
    assert np.array_equal(both[0], both[1]) == still
    other = corrupt(same[:1], np.array([0]), name, 3, seed=1)
    assert np.array_equal(both[0], other[0]) == still


TRADES = ("elastic_transform", "frost", "fog", "glass_blur")
"""Their strengths trade one parameter for another: the distance does not grow with each severity."""


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in TRADES])
@every_size
def test_severity_5_changes_more_than_severity_1(name: str, size: int) -> None:
    images = scenes(size)
    mild, strong = (
        np.abs(changed(images, name, severity).astype(float) - images).mean() for severity in (1, 5)
    )
    assert 0 < mild < strong


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.04), (5, 0.10)])
def test_gaussian_noise_has_its_standard_deviation(severity: int, deviation: float) -> None:
    noise = changed(flat(128, 32, 20), "gaussian_noise", severity) / 255.0 - 128 / 255
    assert noise.std() == pytest.approx(deviation, rel=0.02)
    assert abs(noise.mean()) < 0.002


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (5, 3)])
def test_shot_noise_has_the_variance_of_counting(severity: int, photons: float) -> None:
    values = changed(flat(51, 128), "shot_noise", severity) / 255.0
    assert values.mean() == pytest.approx(0.2, rel=0.02)
    assert values.var() == pytest.approx(0.2 / photons, rel=0.05)


def test_impulse_noise_hits_its_share_half_black_half_white() -> None:
    values = changed(flat(128, 128), "impulse_noise", 5)
    assert (values == 0).mean() == pytest.approx(0.27 / 2, rel=0.05)
    assert (values == 255).mean() == pytest.approx(0.27 / 2, rel=0.05)


@pytest.mark.parametrize(
    "name",
    ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast", "elastic_transform",
     "pixelate"],
)  # fmt: skip
@every_size
def test_these_leave_a_flat_image_as_it_is(name: str, size: int) -> None:
    for severity in (1, 5):
        assert (changed(flat(100, size), name, severity) == 100).all()


def test_the_disk_of_defocus() -> None:
    kernel = disk(3, 0.1)
    y, x = np.mgrid[-3:4, -3:4]
    circle = x**2 + y**2 <= 9
    np.testing.assert_allclose(kernel, circle / circle.sum(), atol=1e-12)
    assert disk(10, 0.5).shape == (25, 25), "a circle of 21 and an edge of 2"
    assert disk(0.3, 0.4).shape == (3, 3)
    point = np.zeros((1, 129, 129, 3), np.uint8)
    point[0, 64, 64] = 255
    spread = changed(point, "defocus_blur", 1)[0, 61:68, 61:68, 0]
    assert np.array_equal(spread, np.round(kernel * 255))


def test_smear_follows_the_angle() -> None:
    point = np.zeros((2, 21, 21, 1))
    point[:, 10, 10] = 1
    across, down = smear(point, 4, 2.0, np.array([0.0, 90.0]))[..., 0]
    weights = np.exp(-(np.arange(9) ** 2) / 8)
    weights /= weights.sum()
    np.testing.assert_allclose(across[10, 2:11][::-1], weights, atol=1e-3)
    np.testing.assert_allclose(across.T, down, atol=1e-12)
    assert across.sum() == pytest.approx(1)


def test_enlarge_keeps_the_middle() -> None:
    ramp = np.broadcast_to(np.linspace(-1, 1, 33)[None, :, None, None], (1, 33, 33, 1))
    np.testing.assert_allclose(enlarge(ramp, 2.0), ramp / 2, atol=1e-12)
    assert enlarge(ramp, 1.0) == pytest.approx(ramp)


def test_glass_moves_pixels_without_changing_them() -> None:
    images = scenes(32)
    glass = changed(images, "glass_blur", 1)  # sigma 0.05 does not blur
    assert np.array_equal(np.sort(glass.reshape(3, -1)), np.sort(images.reshape(3, -1)))
    assert np.array_equal(glass[:, 0, -1], images[:, 0, -1]), "a corner has no turn of its own"


def test_brightness_adds_to_the_value_and_keeps_the_hue() -> None:
    colour = np.array([100, 50, 0], np.uint8)
    images = np.broadcast_to(colour, (1, 32, 32, 3))
    value = 100 / 255 + 0.3
    wanted = np.round(np.array([value, value / 2, 0]) * 255)
    assert np.abs(changed(images, "brightness", 5)[0, 0, 0] - wanted).max() <= 1
    assert (changed(flat(0, 32), "brightness", 5) == round(0.3 * 255)).all()


def test_contrast_shrinks_towards_the_mean() -> None:
    images = scenes(128)
    mean = images.mean(axis=(1, 2), keepdims=True)
    wanted = np.round(mean + (images - mean) * 0.05)
    assert np.abs(changed(images, "contrast", 5) - wanted).max() <= 1


def test_pixelate_is_a_box_filter() -> None:
    images = scenes(128)
    for severity, share in ((1, 0.6), (5, 0.25)):
        side = int(128 * share)
        small = Image.fromarray(images[0]).resize((side, side), Image.Resampling.BOX)
        wanted = np.asarray(small.resize((128, 128), Image.Resampling.BOX)).astype(int)
        assert np.abs(changed(images, "pixelate", severity)[0] - wanted).max() <= 1
    np.testing.assert_allclose(box(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])


def test_jpeg_is_pillow_s() -> None:
    images = scenes(128)
    file = io.BytesIO()
    Image.fromarray(images[1]).save(file, "JPEG", quality=7)
    wanted = np.asarray(Image.open(file))
    assert np.array_equal(changed(images, "jpeg_compression", 5)[1], wanted)


def test_plasma_fills_the_unit_interval_and_gets_rougher() -> None:
    def field(decay: float) -> np.ndarray:
        return plasma([np.random.Generator(np.random.PCG64(3))], 60, decay)[0]

    smooth, rough = field(3.0), field(1.2)
    assert smooth.shape == (64, 64)
    for each in (smooth, rough):
        assert each.min() == 0
        assert each.max() == 1
    assert np.abs(np.diff(smooth)).mean() < np.abs(np.diff(rough)).mean() / 2


def test_weather_brightens_dark_images() -> None:
    dark = flat(20, 128)
    for name in ("snow", "frost"):
        assert changed(dark, name, 3).mean() > 40
    foggy = changed(scenes(128), "fog", 5)
    assert foggy.std(axis=(1, 2)).mean() < 1.5 * scenes(128).std(axis=(1, 2)).mean()


@pytest.mark.parametrize(("name", "severity"), [("fgo", 1), ("fog", 0), ("fog", 6)])
def test_unknown_ones(name: str, severity: int) -> None:
    with pytest.raises(ConfigurationError, match=r"Did you mean fog|it must be 1 … 5"):
        changed(flat(0, 32), name, severity)
