"""Data sets by name, on tiny folders and files in the published layouts, and the real ones that are here."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from cl.data.datasets import MissingDataError
from cl.errors import ConfigurationError, DataError
from streams.classes import class_incremental
from streams.datasets import ARRAYS, FILES, load
from streams.domains import domain_incremental
from tests.streams.test_avalanche import write_mnist
from tests.streams.test_damaged import mutated


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CL_OFFLINE", "1")
    return tmp_path


def paint(file: Path, shade: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (shade, shade, shade)).save(file)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def flowers(root: Path) -> None:
    base = root / "flowers-102"
    for number in range(1, 7):
        paint(base / "jpg" / f"image_{number:05d}.jpg", 100 * (number % 2))
    savemat(base / "imagelabels.mat", {"labels": np.array([2, 1, 2, 1, 2, 1])})
    splits = {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]}
    savemat(base / "setid.mat", {key: np.array(ids) for key, ids in splits.items()})


def food101(root: Path) -> None:
    base = root / "food-101"
    for part, numbers in (("train", (0, 1)), ("test", (2,))):
        listed = {name: [f"{name}/{n}" for n in numbers] for name in ("pie", "soup")}
        write(base / "meta" / f"{part}.json", json.dumps(listed))
        for shade, name in enumerate(("pie", "soup")):
            for number in numbers:
                paint(base / "images" / name / f"{number}.jpg", 100 * shade)


def eurosat(root: Path) -> None:
    for shade, name in enumerate(("Forest", "River")):
        for number in range(5):
            paint(root / "eurosat" / "2750" / name / f"{name}_{number}.jpg", 100 * shade)


def dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    for number, part in enumerate(("train", "val", "test")):
        lines = []
        for shade, name in enumerate(("dotted", "woven")):
            paint(base / "images" / name / f"{name}_{number}.jpg", 100 * shade)
            lines.append(f"{name}/{name}_{number}.jpg")
        write(base / "labels" / f"{part}1.txt", "\n".join(lines))


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for part, first in (("trainval", 1), ("test", 3)):
        lines = []
        for label, name in enumerate(("Abyssinian", "beagle")):
            for number in (first, first + 1):
                paint(base / "images" / f"{name}_{number}.jpg", 100 * label)
                lines.append(f"{name}_{number} {label + 1} 1 1")
        write(base / "annotations" / f"{part}.txt", "\n".join(lines))


def gtsrb(root: Path) -> None:
    base, lines = root / "gtsrb", ["Filename;ClassId"]
    for label in range(2):
        for number in range(2):
            paint(base / "GTSRB" / "Training" / f"{label:05d}" / f"{number}.ppm", 100 * label)
        paint(base / "GTSRB" / "Final_Test" / "Images" / f"{label}.ppm", 100 * label)
        lines.append(f"{label}.ppm;{label}")
    write(base / "GT-final_test.csv", "\n".join(lines))


def sun397(root: Path) -> None:
    names = ["/a/abbey", "/b/bar/indoor"]
    write(root / "SUN397" / "ClassName.txt", "\n".join(names) + "\n")
    for shade, name in enumerate(names):
        for number in range(5):
            paint(root / f"SUN397{name}" / f"sun_{number}.jpg", 100 * shade)


def cars(root: Path) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["A", "B"], dtype=object)})
    kind = [("fname", object), ("class", int)]
    for part, file in (
        ("train", base / "devkit" / "cars_train_annos.mat"),
        ("test", base / "cars_test_annos_withlabels.mat"),
    ):
        noted = np.array([("1.jpg", 1), ("2.jpg", 2)], dtype=kind)
        savemat(file, {"annotations": noted})
        for label in (0, 1):
            paint(base / f"cars_{part}" / f"{label + 1}.jpg", 100 * label)


def aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    write(base / "variants.txt", "A300\nBoeing 707\n")
    for part, first in (("trainval", 0), ("test", 2)):
        lines = []
        for label, name in enumerate(("A300", "Boeing 707")):
            paint(base / "images" / f"{first + label}.jpg", 100 * label)
            lines.append(f"{first + label} {name}")
        write(base / f"images_variant_{part}.txt", "\n".join(lines))


def cub200(root: Path) -> None:
    base = root / "CUB_200_2011"
    paths = ["001.Crow/a.jpg", "001.Crow/b.jpg", "002.Owl/c.jpg", "002.Owl/d.jpg"]
    for index, path in enumerate(paths):
        paint(base / "images" / path, 100 * (index // 2))
    write(base / "images.txt", "\n".join(f"{i + 1} {path}" for i, path in enumerate(paths)))
    write(base / "image_class_labels.txt", "1 1\n2 1\n3 2\n4 2\n")
    write(base / "train_test_split.txt", "1 1\n2 0\n3 1\n4 0\n")
    write(base / "classes.txt", "1 001.Crow\n2 002.Owl\n")


def class_folders(root: Path) -> None:
    for shade, name in enumerate(("n01443537", "n01484850")):
        for number in range(5):
            paint(root / "imagenet_r" / name / f"{number}.jpg", 100 * shade)


def split_folders(root: Path) -> None:
    for part in ("train", "val"):
        for shade, name in enumerate(("n01443537", "n01484850")):
            for number in range(2):
                paint(root / "imagenet100" / part / name / f"{number}.JPEG", 100 * shade)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("flowers", flowers),
        ("food101", food101),
        ("dtd", dtd),
        ("pets", pets),
        ("gtsrb", gtsrb),
        ("sun397", sun397),
        ("cars", cars),
        ("aircraft", aircraft),
        ("cub200", cub200),
    ],
)
def test_damaged_lists_end_in_a_sentence(
    root: Path, name: str, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(root)
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.Flowers102, "classes", ["pink primrose", "rose"])
    lists = sorted(
        file for file in root.rglob("*.*") if file.suffix in (".mat", ".txt", ".csv", ".json")
    )
    for seed, file in enumerate(lists * 4):
        whole = file.read_bytes()
        file.write_bytes(mutated(whole, random.Random(f"{name} {seed}")))
        with suppress(DataError):  # anything else is a traceback
            data = load(f"{name}@8")
            data.train.take(np.arange(len(data.train)))
        file.write_bytes(whole)
    assert load(f"{name}@8").classes == 2


@pytest.mark.parametrize(
    ("name", "make", "names", "train", "test"),
    [
        ("flowers", flowers, ("pink primrose", "rose"), 4, 2),
        ("food101", food101, ("pie", "soup"), 4, 2),
        ("eurosat", eurosat, ("Forest", "River"), 8, 2),
        ("dtd", dtd, ("dotted", "woven"), 4, 2),
        ("pets", pets, ("Abyssinian", "Beagle"), 4, 4),
        ("gtsrb", gtsrb, ("0", "1"), 4, 2),
        ("sun397", sun397, ("abbey", "bar/indoor"), 8, 2),
        ("cars", cars, ("A", "B"), 2, 2),
        ("aircraft", aircraft, ("A300", "Boeing 707"), 2, 2),
        ("cub200", cub200, ("Crow", "Owl"), 2, 2),
        ("imagenet_r", class_folders, ("n01443537", "n01484850"), 8, 2),
        ("imagenet100", split_folders, ("n01443537", "n01484850"), 4, 4),
    ],
)
def test_published_layouts(
    root: Path,
    name: str,
    make,
    names: tuple[str, ...],
    train: int,
    test: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(root)
    # The real lists have known checksums, which our tiny ones cannot have.
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.Flowers102, "classes", ["pink primrose", "rose"])
    data = load(f"{name}@8")
    assert data.class_names == names
    assert (len(data.train), len(data.test)) == (train, test)
    assert data.card is not None
    for part in (data.train, data.test):
        images, labels = part.take(np.arange(len(part)))
        assert images.shape[1:] == (8, 8, 3)
        assert np.abs(images[:, 4, 4, 0].astype(int) - 100 * labels).max() <= 3, "label and image"
    assert len(class_incremental(data, tasks=2)) == 2


def test_domains_by_name(root: Path) -> None:
    for shade, domain in enumerate(("cartoon", "photo")):
        for name in ("dog", "horse"):
            for number in range(5):
                paint(root / "pacs" / domain / name / f"{number}.jpg", 100 * shade)
    stream = domain_incremental("pacs@8", domains=["photo", "cartoon"])
    assert [len(part) for part in (*stream.train, *stream.test)] == [8, 8, 2, 2]
    assert stream.train[0].take(np.arange(8))[0].mean() == pytest.approx(100, abs=3)


def test_mnist_and_fashion_mnist(root: Path) -> None:
    write_mnist(root / "MNIST" / "raw")
    write_mnist(root / "FashionMNIST" / "raw")
    for name, first in (("mnist", "0"), ("fashion_mnist", "T-shirt/top")):
        data = load(name)
        assert (len(data.train), len(data.test), data.class_names[0]) == (20, 10, first)
        assert data.train.images.shape == (20, 28, 28, 1)


def test_tiny_imagenet_without_a_test_set_gets_a_fixed_one(root: Path) -> None:
    folder = root / "tiny_imagenet"
    folder.mkdir()
    np.save(folder / "train_images.npy", np.zeros((20, 4, 4, 3), np.uint8))
    np.save(folder / "train_labels.npy", np.repeat([0, 1], 10))
    write(folder / "classes.json", json.dumps(["n01443537", "n01629819"]))
    data = load("tiny_imagenet")
    assert list(np.bincount(data.train.targets)) == [8, 8]
    assert list(np.bincount(data.test.targets)) == [2, 2]
    assert not set(data.train.rows) & set(data.test.rows)
    assert np.array_equal(load("tiny_imagenet").test.rows, data.test.rows)


@pytest.mark.parametrize("name", sorted({*ARRAYS, *FILES} - {"digits"}))
def test_what_is_missing_is_told_with_its_layout(root: Path, name: str) -> None:
    with pytest.raises(MissingDataError, match=r"(?s)Put there:\n.*CL_DATA_DIR") as error:
        load(name)
    assert error.value.card is not None
    assert error.value.card.classes >= 7
    assert error.value.card.licence


def test_mistakes_in_the_name(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean flowers"):
        load("flower")
    with pytest.raises(ConfigurationError, match=r"as in flowers@224"):
        load("flowers@big")
    with pytest.raises(ConfigurationError, match="mnist has its own size"):
        load("mnist@64")
    with pytest.raises(DataError, match="there is no such folder"):
        load("./nowhere")


def test_a_damaged_list_of_cub(root: Path) -> None:
    cub200(root)
    write(root / "CUB_200_2011" / "train_test_split.txt", "1 1\n")
    with pytest.raises(DataError, match="different lengths"):
        load("cub200")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "classes", "train", "test"),
    [("mnist", 10, 60000, 10000), ("cifar100", 100, 50000, 10000), ("tiny_imagenet", 200, 19200, 4800)],
)  # fmt: skip
def test_the_real_ones(name: str, classes: int, train: int, test: int) -> None:
    data = load(name)
    assert (data.classes, len(data.train), len(data.test)) == (classes, train, test)
    counts = np.bincount(data.test.targets)
    assert name == "mnist" or counts.min() == counts.max()
