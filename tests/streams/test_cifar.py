"""CIFAR from the arrays in CL_DATA_DIR: on small arrays of the same layout, and the real ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from cl.errors import ConfigurationError, DataError
from streams.cifar import split_cifar
from tests.processes import at_once, die, killed, ordinary_user


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten classes of small random images, as the arrays of CIFAR-10."""
    monkeypatch.setenv("CL_DATA_DIR", str(tmp_path))
    made = tmp_path / "cifar10"
    made.mkdir()
    generator = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 20)):
        np.save(
            made / f"{part}_images.npy", generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
        )
        np.save(made / f"{part}_labels.npy", np.arange(count) % 10)
    (made / "classes.json").write_text(json.dumps([f"c{i}" for i in range(10)]))
    return made


def test_reads_the_arrays(folder: Path) -> None:
    stream = split_cifar("cifar10", tasks=5, order_seed=None)
    assert len(stream) == 5
    assert stream.class_names == tuple(f"c{i}" for i in range(10))
    assert stream.augmentation == "crop_flip"
    assert [len(data) for data in stream.train] == [8] * 5


def test_images_of_another_length_than_labels(folder: Path) -> None:
    np.save(folder / "train_labels.npy", np.arange(39) % 10)
    with pytest.raises(DataError, match=r"40 images, but 39 labels"):
        split_cifar("cifar10")


def test_a_truncated_file_is_named(folder: Path) -> None:
    file = folder / "test_images.npy"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"test_images\.npy cannot be read"):
        split_cifar("cifar10")


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "test_labels.npy").unlink()
    with pytest.raises(DataError, match=r"test_labels\.npy is missing"):
        split_cifar("cifar10")


def test_labels_that_no_class_has(folder: Path) -> None:
    np.save(folder / "train_labels.npy", np.arange(40) % 11)
    with pytest.raises(DataError, match=r"labels 0 … 10, but classes\.json names 10 classes"):
        split_cifar("cifar10")


def test_without_data_and_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "CIFAR100", refuse)
    monkeypatch.setenv("CL_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError) as error:
        split_cifar()
    for words in ("train_images.npy", "classes.json", "CL_DATA_DIR", "stream=split_digits"):
        assert words in str(error.value)


class Downloaded:
    """What torchvision gives for CIFAR-10; each use is a line in the file `log`."""

    def __init__(self, root: str, train: bool, download: bool) -> None:
        with (Path(root) / "log").open("a") as log:
            log.write(f"{train} ")
        time.sleep(0.02)
        count = 20 if train else 10
        self.data = np.full((count, 32, 32, 3), 7, np.uint8)
        self.targets = [i % 10 for i in range(count)]
        self.classes = [f"c{i}" for i in range(10)]


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets, "CIFAR10", Downloaded)
    monkeypatch.setenv("CL_DATA_DIR", str(tmp_path))
    return tmp_path


def images() -> int:
    return sum(len(data) for data in split_cifar("cifar10", tasks=2).train)


def test_a_download_is_converted_once(downloaded: Path) -> None:
    assert [images(), images()] == [20, 20]
    assert (downloaded / "log").read_text() == "True False ", "the second time the arrays are there"


def test_of_eight_processes_one_converts(downloaded: Path) -> None:
    assert at_once(8, images) == [20] * 8
    assert (downloaded / "log").read_text() == "True False "
    assert not list(downloaded.rglob("*.partial"))


@pytest.mark.parametrize("saved", range(4))
def test_a_conversion_that_was_killed_begins_again(
    downloaded: Path, monkeypatch: pytest.MonkeyPatch, saved: int
) -> None:
    real, calls = np.save, []

    def save(file: Any, array: Any) -> None:
        calls.append(file)
        if len(calls) > saved:
            file.write(b"half of it")
            file.flush()
            die()
        real(file, array)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", save)
        killed(images)
    assert len(list(downloaded.rglob("*.partial"))) == 1
    assert images() == 20
    assert not list(downloaded.rglob("*.partial"))


def test_a_folder_that_cannot_be_written(downloaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(downloaded)
    monkeypatch.setenv("CL_DATA_DIR", ".")
    downloaded.chmod(0o555)
    with ordinary_user(), pytest.raises(DataError, match="cannot be converted to arrays there"):
        images()


def test_unknown_data_set() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean cifar100"):
        split_cifar("cifar1000")


@pytest.mark.real_data
def test_the_real_cifar_100() -> None:
    stream = split_cifar()
    assert [len(data) for data in stream.train] == [5000] * 10
    assert [len(data) for data in stream.test] == [1000] * 10
    pixels = stream.train[0].images.reshape(-1, 3)[::997] / 255
    assert np.allclose(pixels.mean(0), [0.5071, 0.4865, 0.4409], atol=0.01)
    assert stream.class_names[:3] == ("road", "palm_tree", "snake"), "classes 68, 56, 78: seed 1993"
