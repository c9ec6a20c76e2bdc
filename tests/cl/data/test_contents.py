"""The hash of a stream's contents: it sees every stored pixel, and a sample of what is computed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cl.data.contents
import cl.data.splits
from cl.data.arrays import ArrayDataset
from cl.data.computed import computed, mapped
from cl.data.contents import contents, hash_pixels
from cl.data.files import file_images
from cl.errors import DataError
from cl.stream import Stream
from tests.conftest import toy_stream


def noise(count: int, side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def of(images: np.ndarray) -> str:
    data = ArrayDataset.of(images, np.zeros(len(images), dtype=np.int64))
    return contents([[data]], ["a"])


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 3), (50, 32, 32, 3), (2, 1500, 1000, 3)])
def test_any_pixel_counts(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = hash_pixels(images)
    assert hash_pixels(images.copy(order="F")) == before, "how they lie in memory does not count"
    for position in np.random.default_rng(1).integers(0, images.size, 20):
        changed = images.copy()
        changed.reshape(-1)[position] ^= 1
        assert hash_pixels(changed) != before
    assert hash_pixels(images[:, ::-1].copy()) != before or shape[1] == 1
    assert hash_pixels(images.reshape(-1)) != before, "nor are other shapes the same"


def test_a_data_set_as_large_as_cifar_takes_a_moment() -> None:
    images = noise(50_000, 32)
    start = time.process_time()
    of(images)
    assert time.process_time() - start < 0.3


def test_class_names_and_test_images_count() -> None:
    stream = toy_stream()
    renamed = replace(stream, class_names=("another", *list(stream.class_names)[1:]))
    black = [replace(t, images=np.zeros_like(t.images)) for t in stream.test]
    found = {stream.contents, renamed.contents, replace(stream, test=black).contents}
    assert len(found) == 3
    assert toy_stream().contents == stream.contents


def test_shared_images_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = hash_pixels
    monkeypatch.setattr(
        cl.data.contents, "hash_pixels", lambda images: seen.append(len(images)) or original(images)
    )
    assert toy_stream(tasks=4).contents
    assert seen == [48, 24]


def test_of_too_many_a_sample_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(2000)
    monkeypatch.setattr(cl.data.contents, "WHOLE_BYTES", 1000)
    before = of(images)
    assert of(images.copy()) == before
    assert of(noise(2000, seed=1)) != before, "all pixels are others"
    assert of(np.concatenate([images[:1000], noise(1000, seed=1)])) != before


def test_what_changed_images_are_made_from_counts() -> None:
    def darker(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        raise AssertionError("they need not be computed")

    assert of(mapped(noise(10), darker, "darker")) == of(noise(10)), "the key tells them apart"
    assert of(mapped(noise(10, seed=1), darker, "darker")) != of(noise(10))


def test_computed_images_are_sampled() -> None:
    def make(seed: int) -> np.ndarray:
        return computed((9, 8, 8, 3), lambda rows: noise(9, seed=seed)[rows], "own")

    assert of(make(0)) == of(make(0)) != of(make(1))


def test_images_in_files_count_by_their_bytes(tmp_path: Path) -> None:
    files = [tmp_path / f"{index}.png" for index in range(4)]
    for file, image in zip(files, noise(4), strict=True):
        Image.fromarray(image).save(file)
    before = of(file_images(files, 8, "files"))
    assert of(file_images(files, 8, "files")) == before
    Image.fromarray(noise(1, seed=5)[0]).save(files[2])
    assert of(file_images(files, 8, "files")) != before
    files[2].unlink()
    with pytest.raises(DataError, match=r"2\.png cannot be read"):
        of(file_images(files, 8, "files"))


def test_noise_instead_of_the_pixels_is_refused(tmp_path: Path) -> None:
    labels, file = np.arange(40) % 4, tmp_path / "split.npz"
    stream = Stream.from_arrays(noise(40), labels, tasks=2)
    other = Stream.from_arrays(noise(40, seed=1), labels, tasks=2)
    assert stream.fingerprint() == other.fingerprint(), "the same rows and labels"
    stream.save_split(file)
    Stream.from_arrays(noise(40), labels, tasks=2).save_split(file)
    with pytest.raises(DataError, match="other pixels or other class names"):
        other.save_split(file)


def test_a_split_of_an_older_version_is_compared_by_what_it_has(tmp_path: Path) -> None:
    stream, file = toy_stream(), tmp_path / "split.npz"
    np.savez_compressed(file, fingerprint=np.array(stream.fingerprint()), **stream.split())
    stream.save_split(file)
    with pytest.raises(DataError, match="other images in other experiences"):
        toy_stream(tasks=4).save_split(file)


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04 and no more"])
def test_a_damaged_split_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "split.npz").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        toy_stream().save_split(tmp_path / "split.npz")


def test_a_split_that_could_not_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cl.data.splits, "columns", full)
    with pytest.raises(OSError, match="No space"):
        toy_stream().save_split(tmp_path / "split.npz")
    assert not list(tmp_path.iterdir())


def test_a_lone_array_in_the_place_of_the_split_is_damage(tmp_path: Path) -> None:
    with (tmp_path / "split.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="is damaged"):
        toy_stream().save_split(tmp_path / "split.npz")
