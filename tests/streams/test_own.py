"""One's own data: arrays and folders, and what is answered when they are wrong."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl.data.decoding import decode
from cl.errors import ConfigurationError, DataError
from cl.learner import Learner
from cl.strategy import Progress
from cl.stream import Stream
from streams.classes import long_tailed
from streams.own import arrays, folder
from tests.conftest import Compose, toy_images


def paint(file: Path, colour: tuple[int, ...], mode: str = "RGB", size: tuple = (12, 10)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour if len(colour) > 1 else colour[0]).save(file)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of five one-coloured pictures, `class/image`."""
    for label, name in enumerate(("ant", "bee", "cat")):
        for number in range(5):
            paint(tmp_path / "photos" / name / f"{number}.png", (40 * label, 9 * number, 77))
    return tmp_path / "photos"


def test_class_folders_get_a_split_of_ours(photos: Path) -> None:
    stream = folder(str(photos), tasks=3, image_size=8)
    assert stream.name == "photos"
    assert stream.class_names == ("ant", "bee", "cat")
    assert [len(part) for part in stream.train] == [4, 4, 4]
    assert [len(part) for part in stream.test] == [1, 1, 1]
    rows = np.concatenate([part.rows for part in (*stream.train, *stream.test)])
    assert sorted(rows) == list(range(15))
    images, labels = stream.train[1].take(np.arange(4))
    assert images.shape == (4, 8, 8, 3)
    assert set(labels) == {1}
    assert (images[..., 0] == 40).all()
    assert (images[..., 2] == 77).all()
    assert folder(str(photos), tasks=3, image_size=8).fingerprint() == stream.fingerprint()
    assert folder(str(photos), tasks=3, seed=1).fingerprint() != stream.fingerprint()


def test_train_and_test_folders(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for name in ("x", "y"):
            for number in range(count):
                paint(tmp_path / part / name / f"{number}.jpg", (0, 0, 0))
    stream = folder(str(tmp_path), tasks=2)
    assert [len(part) for part in (*stream.train, *stream.test)] == [3, 3, 2, 2]


def test_domains_of_classes(tmp_path: Path) -> None:
    for shade, domain in enumerate(("photo", "sketch")):
        for name in ("x", "y"):
            for number in range(5):
                paint(tmp_path / domain / name / f"{number}.png", (50 * shade, 0, 0))
    stream = folder(str(tmp_path), image_size=4)
    assert stream.scenario == "domain-incremental"
    assert [len(part) for part in (*stream.train, *stream.test)] == [8, 8, 2, 2]
    assert (stream.train[1].take(np.arange(8))[0][..., 0] == 50).all()
    assert (stream.test[0].take(np.arange(2))[0][..., 0] == 0).all()


def test_any_scenario_takes_a_path(photos: Path) -> None:
    stream = long_tailed(f"{photos}@8", tasks=3, imbalance=4)
    assert [len(part) for part in stream.train] == [4, 2, 1]
    assert stream.train[0].images.shape[1:] == (8, 8, 3)


def test_a_data_set_may_be_a_folder_here_or_have_an_at_in_its_path(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    photos.rename(photos.with_name("me@uni"))
    for name in ("me@uni", "me@uni@16", f"{photos.parent}/me@uni", f"{photos.parent}/me@uni@16"):
        stream = long_tailed(name, tasks=3, imbalance=4)
        assert stream.train[0].images.shape[1] == (16 if name.endswith("@16") else 64)
    with pytest.raises(ConfigurationError, match="after the @ stands the side"):
        long_tailed("digits@large")
    with pytest.raises(ConfigurationError, match="given by its path"):
        long_tailed("nowhere")


@pytest.mark.parametrize(
    "name", ["x" * 5000, "x\0y", "x" * 5000 + ".zip", "/dev/null", "/dev/zero"]
)
def test_paths_that_are_no_folders(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        folder(name)
    for suffix in (".npz", ".npy"):
        with pytest.raises(DataError, match=r"cannot be read|is missing|no regular file"):
            arrays(f"{name}{suffix}", f"{name}.npy")


def test_grey_and_transparent_images_among_colour_ones(photos: Path) -> None:
    paint(photos / "ant" / "5.png", (90,), "L")
    paint(photos / "ant" / "6.png", (200, 0, 0, 0), "RGBA")
    assert (decode(photos / "ant" / "5.png", 4) == 90).all()
    assert (decode(photos / "ant" / "6.png", 4) == 255).all(), "transparent is white"
    assert len(folder(str(photos), tasks=3).train[0]) == 6


def test_the_middle_of_the_image_is_kept(tmp_path: Path) -> None:
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", 4)[:, 1:3] > 200).all()


def test_an_undecodable_image_is_named_and_skipped_only_if_asked(photos: Path) -> None:
    bad = photos / "bee" / "9.png"
    bad.write_bytes((photos / "bee" / "0.png").read_bytes()[:30])
    stream = folder(str(photos), tasks=3)
    images = stream.train[1].images
    with pytest.raises(DataError, match=r"9\.png cannot be decoded .* stream.skip_unreadable=true"):
        np.asarray(images)
    stream = folder(str(photos), tasks=3, skip_unreadable=True)
    parts = (stream.train[1], stream.test[1])
    assert sum(len(part) for part in parts) == 5
    for part in parts:
        part.take(np.arange(len(part)))


def test_files_that_are_no_images_are_named_before_the_first_task(photos: Path) -> None:
    (photos / "bee" / "8.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"8\.png is no image\. .*stream.skip_unreadable=true"):
        folder(str(photos), tasks=3)
    (photos / "bee" / "9.png").touch()
    with pytest.raises(DataError, match=r"8\.png is no image, nor are 1 others"):
        folder(str(photos), tasks=3)
    stream = folder(str(photos), tasks=3, skip_unreadable=True)
    assert "2 left out (2 unreadable; such as" in stream.about


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "big.png", (1, 2, 3), size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"big\.png cannot be decoded"):
        decode(tmp_path / "big.png", 4)


def test_links_and_hidden_files(photos: Path) -> None:
    paint(photos / "ant" / ".hidden.png", (0, 0, 0))
    (photos / ".cache").mkdir()
    (photos / "ant" / "notes.txt").write_text("no image")
    assert len(folder(str(photos), tasks=3).train[0]) == 4


def test_folders_that_cannot_be_used(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        folder(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="one folder of images per class"):
        folder(str(tmp_path / "empty"))
    (photos / "dog").mkdir()
    with pytest.raises(DataError, match="dog: there is no image in it"):
        folder(str(photos))
    with pytest.raises(ConfigurationError, match="image_size=0"):
        folder(str(photos), image_size=0)


def test_a_class_with_one_image_has_none_for_training(photos: Path) -> None:
    paint(photos / "dog" / "0.png", (0, 0, 0))
    with pytest.raises(DataError, match="no training images of dog"):
        folder(str(photos), tasks=2)


def test_classes_that_differ_between_training_and_test(tmp_path: Path) -> None:
    for place in ("train/x", "train/y", "test/x", "test/z"):
        paint(tmp_path / place / "0.png", (0, 0, 0))
    with pytest.raises(DataError, match=r"only in .*train: y; only in .*test: z"):
        folder(str(tmp_path))


def test_twenty_thousand_files_are_listed_in_a_second(tmp_path: Path) -> None:
    for label in range(20):
        (tmp_path / f"{label:02}").mkdir()
        for number in range(1000):
            (tmp_path / f"{label:02}" / f"{number}.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    paint(tmp_path / "00" / "0.jpg", (1, 2, 3))
    start = time.process_time()
    stream = folder(str(tmp_path), tasks=5)
    assert sum(len(part) for part in stream.train) == 16000
    assert time.process_time() - start < 1


class FirstStepError(Exception):
    """Raised by the test to stop the training."""


def test_twenty_thousand_files_start_training_within_a_second(
    tmp_path: Path, compose: Compose
) -> None:
    """From the listed folder to the end of the first step; real JPEG files, of which few are read."""
    paint(tmp_path / "photo.jpg", (90, 120, 60), size=(224, 224))
    for label in range(20):
        (tmp_path / "photos" / f"{label:02}").mkdir(parents=True)
        for number in range(1000):
            (tmp_path / "photos" / f"{label:02}" / f"{number}.jpg").hardlink_to(
                tmp_path / "photo.jpg"
            )
    stream = folder(str(tmp_path / "photos"), tasks=2, image_size=32)
    learner = Learner(compose(), stream.info, stream.augmentation)
    steps: list[int] = []

    def stop(progress: Progress) -> None:
        steps.append(progress.steps)
        raise FirstStepError

    start = time.process_time()
    experience = stream.experience(0)
    with pytest.raises(FirstStepError):
        learner.learn(experience, on_step=stop)
    assert time.process_time() - start < 1
    assert steps == [2 * 8000 // 8]


def saved(folder: Path, **content: np.ndarray) -> str:
    np.savez(folder / "mine.npz", **content)
    return str(folder / "mine.npz")


def test_npz_with_and_without_test_images(tmp_path: Path) -> None:
    data = toy_images(40, 4, 0)
    stream = arrays(saved(tmp_path, images=data.images, labels=data.labels), tasks=2)
    assert [len(part) for part in (*stream.train, *stream.test)] == [16, 16, 4, 4]
    assert stream.name == "mine"
    column = data.labels[:, None].astype(np.uint8)  # as MedMNIST keeps them
    medmnist = saved(
        tmp_path,
        train_images=data.images[..., 0],
        train_labels=column,
        val_images=data.images[..., 0],
        val_labels=column,
        test_images=data.images[:12, ..., 0],
        test_labels=column[:12],
    )
    stream = arrays(medmnist, tasks=2)
    assert [len(part) for part in (*stream.train, *stream.test)] == [20, 20, 6, 6]
    assert stream.train[0].images.shape == (40, 8, 8, 1)


def test_npy_files_are_memory_mapped(tmp_path: Path) -> None:
    data = toy_images(40, 4, 0)
    np.save(tmp_path / "x.npy", data.images)
    np.save(tmp_path / "y.npy", data.labels)
    stream = arrays(str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), tasks=2)
    assert isinstance(stream.train[0].images.base, np.memmap)
    with pytest.raises(ConfigurationError, match=r"give stream.labels="):
        arrays(str(tmp_path / "x.npy"))
    with pytest.raises(ConfigurationError, match="both or neither"):
        arrays(str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), str(tmp_path / "x.npy"))


def test_from_python_in_one_line() -> None:
    data = toy_images(40, 4, 0)
    stream = Stream.from_arrays(data.images, data.labels, tasks=2, class_names=["a", "b", "c", "d"])
    assert [stream.experience(i).names for i in range(2)] == [("a", "b"), ("a", "b", "c", "d")]
    assert (
        Stream.from_arrays(data.images[..., 0], data.labels, tasks=2).train[0].images.shape[3] == 1
    )


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 2, 2, 3)), [0, 0, 1, 1], r"images are float64. Give bytes 0 … 255"),
        (np.zeros((4, 2, 2, 2), np.uint8), [0, 0, 1, 1], "N × H × W × 1 or 3"),
        (np.zeros((4, 2, 2, 3), np.uint8), [0, 0, 1], "4 images, but 3 labels"),
        (np.zeros((4, 2, 2, 3), np.uint8), [0.0, 0.0, 1.0, 1.0], "labels must be whole numbers"),
        (np.zeros((4, 2, 2, 3), np.uint8), ["a", "a", "b", "b"], "labels must be whole numbers"),
        (np.zeros((4, 2, 2, 3), np.uint8), [0, 0, 2, 2], r"0 … 1 without gaps, not 0, 2"),
        (np.zeros((4, 2, 2, 3), np.uint8), [1, 1, 2, 2], "without gaps"),
        (np.zeros((4, 2, 2, 3), np.uint8), [-1, -1, 0, 0], "without gaps"),
        (np.zeros((0, 2, 2, 3), np.uint8), np.zeros(0, int), "there is no image"),
    ],
)
def test_arrays_that_cannot_be_used(images: np.ndarray, labels: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Stream.from_arrays(images, np.asarray(labels), tasks=1)


def test_test_images_that_do_not_fit() -> None:
    images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 0, 1, 1])
    with pytest.raises(DataError, match=r"labels 2, but there are 2 class names"):
        Stream.from_arrays(images, labels, 1, images, np.array([0, 1, 2, 2]))
    with pytest.raises(DataError, match=r"no test images of 1"):
        Stream.from_arrays(images, labels, 1, images, np.array([0, 0, 0, 0]))
    with pytest.raises(DataError, match="3 channels, test images 1"):
        Stream.from_arrays(images, labels, 1, images[..., :1], labels)
    with pytest.raises(DataError, match="test images and test labels, or neither"):
        Stream.from_arrays(images, labels, 1, images)


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz is missing"):
        arrays(str(tmp_path / "gone.npz"))
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.npz cannot be read"):
        arrays(str(tmp_path / "bad.npz"))
    objects = saved(tmp_path, images=np.array([{}], dtype=object), labels=np.zeros(1, int))
    with pytest.raises(DataError, match="cannot be read"):
        arrays(objects)
    with pytest.raises(DataError, match="it holds pixels; it needs images and labels"):
        arrays(saved(tmp_path, pixels=np.zeros(1)))
