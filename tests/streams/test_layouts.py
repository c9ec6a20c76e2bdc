"""Odd folders of images: what each is understood as, or what is answered."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl.data.folders import Folders, part_of
from cl.errors import DataError
from cl.learn import class_files
from cl.stream import Stream
from streams.own import folder

AB = ("a", "b")


def paint(file: Path, count: int = 5) -> None:
    """Five small images beside each other; the name of `file` is that of the folder."""
    file.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (4, 4), (10 * number, 0, 0)).save(file / f"{number}.png")


def made(root: Path, *folders: str) -> Path:
    for each in folders:
        paint(root / "photos" / each)
    return root / "photos"


def crossed(tops: str, classes: str = "a b") -> list[str]:
    return [f"{top}/{name}" for top in tops.split() for name in classes.split()]


@pytest.mark.parametrize(
    ("folders", "classes", "images"),
    [
        (["a", "b"], AB, (8, 2)),
        (crossed("train test"), AB, (10, 10)),
        (crossed("Training Testing"), AB, (10, 10)),
        (crossed("training_set test_set"), AB, (10, 10)),
        (crossed("TRAIN VAL"), AB, (10, 10)),
        (crossed("TrainData Evaluation"), AB, (10, 10)),
        (crossed("train_images val-images"), AB, (10, 10)),
        (crossed("seg_train/seg_train seg_test/seg_test"), AB, (10, 10)),
        (crossed("train val test"), AB, (10, 10)),
        (crossed("train"), AB, (8, 2)),
        (crossed("wrapper"), AB, (8, 2)),
        (crossed("deep/wrapper"), AB, (8, 2)),
        (crossed("wrapper/train wrapper/test"), AB, (10, 10)),
        (["a/images", "b/images"], AB, (8, 2)),
        (["train/a/images", "train/b/images", "test/a/images", "test/b/images"], AB, (10, 10)),
        (["a", "b/puppies", "b/old"], AB, (12, 3)),
        (["10", "9", "1"], ("1", "9", "10"), (12, 3)),
        (["x10", "x9"], ("x10", "x9"), (8, 2)),
        (["valley", "testudo", "trainer"], ("testudo", "trainer", "valley"), (12, 3)),
        (["bullet_train", "ferry"], ("bullet_train", "ferry"), (8, 2)),
        (["a", "b", ".hidden"], AB, (8, 2)),
        ([" a", "b "], AB, (8, 2)),
    ],
)
def test_classes(
    tmp_path: Path, folders: list[str], classes: tuple[str, ...], images: tuple[int, int]
) -> None:
    stream = folder(str(made(tmp_path, *folders)), tasks=1, image_size=4)
    assert stream.scenario == "class-incremental"
    assert tuple(stream.class_names) == classes
    assert (len(stream.train[0]), len(stream.test[0])) == images


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (crossed("photo sketch"), AB),
        (crossed("photo sketch", "9 10"), ("9", "10")),
        (crossed("wrapper/photo wrapper/sketch"), AB),
        ([*crossed("photo sketch art"), "photo/c", "art/c"], ("a", "b", "c")),
        ([*crossed("photo sketch"), "photo/c"], ("a", "b", "c")),
    ],
)
def test_domains(tmp_path: Path, folders: list[str], names: tuple[str, ...]) -> None:
    stream = folder(str(made(tmp_path, *folders)), image_size=4)
    assert stream.scenario == "domain-incremental"
    assert tuple(stream.class_names) == names
    assert sum(map(len, stream.train)) == 4 * len(folders)


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (crossed("dog/poodle dog/pug cat/manx"), "not the same classes everywhere"),
        (["dog/poodle", "dog/pug", "cat/manx"], r"cat/manx, dog/poodle.*layouts"),
        (["dog/train", "dog/test", "cat/train", "cat/test"], "its folders hold folders"),
        ([*crossed("train test"), "bus"], "train would be parts .* there is also bus"),
        (["train", "bus", "car"], "train would be parts .* there is also bus"),
        (crossed("train Training"), "one of them must be the training images"),
        (crossed("test"), "one of them must be the training images"),
        (["train/a", "train/b", "test/a"], r"different classes: only in .*train: b"),
        (["train/a", "train/b", "test/images"], r"different classes"),
        (["train", "test"], "no folder of a class"),
        (["cafe\u0301", "café"], r"'cafe\\u0301' and 'caf\\xe9' are both the class café"),
        (["a", "a "], r"'a' and 'a ' are both the class a"),
        (["photo/a", "photo/a ", "sketch/a", "sketch/a "], "are both the class a"),
        (["a", "  "], "must not be blank"),
    ],
)
def test_folders_that_could_be_anything(tmp_path: Path, folders: list[str], told: str) -> None:
    with pytest.raises(DataError, match=f"(?s){told}"):
        folder(str(made(tmp_path, *folders)), image_size=4)


def test_what_the_names_do_not_tell_can_be_said(tmp_path: Path) -> None:
    root = str(made(tmp_path, "dog/poodle", "dog/pug", "cat/manx", "cat/siam"))
    assert tuple(folder(root, tasks=1, layout="classes").class_names) == ("cat", "dog")
    assert len(folder(root, layout="domains").class_names) == 4
    parts = made(tmp_path / "parts", *crossed("train val test"))
    paint(parts / "val" / "a", 7)
    assert len(folder(str(parts), tasks=1, test="val").test[0]) == 12
    assert len(folder(str(parts), tasks=1).test[0]) == 10
    with pytest.raises(DataError, match=r"stream\.test=vall: Did you mean val"):
        folder(str(parts), test="vall")
    with pytest.raises(DataError, match="has no folders train and test"):
        folder(root, test="val")


def test_the_parts_may_spell_a_class_in_two_ways(tmp_path: Path) -> None:
    root = made(tmp_path, "train/cafe\u0301", "train/d", "test/café", "test/d ")
    Image.new("RGB", (4, 4), (255, 255, 255)).save(root / "test" / "café" / "white.png")
    stream = folder(str(root), tasks=2, image_size=4)
    (label,) = {int(each) for each in stream.test[list(stream.class_names).index("café")].targets}
    assert stream.class_names[label] == "café"
    assert max(stream.test[label].take(np.arange(6))[0].ravel()) == 255


def test_an_archive_and_its_folder_are_the_same(tmp_path: Path) -> None:
    root = made(tmp_path, *crossed("wrapper"))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as out:
        for file in sorted(root.rglob("*.png")):
            out.write(file, file.relative_to(root))
    both = [folder(str(each), tasks=2) for each in (root, tmp_path / "photos.zip")]
    assert both[0].class_names == both[1].class_names
    assert both[0].fingerprint() == both[1].fingerprint()


def test_what_was_understood_is_said_in_a_line(tmp_path: Path) -> None:
    root = made(tmp_path, *crossed("photo sketch"))
    assert folder(str(root)).about == "folder: 2 domains of 2 classes, 20 images"
    for name in ("1.heic", "2.HEIC", "3.jp2", "notes"):
        (root / "photo" / "a" / name).touch()
    os.mkfifo(root / "photo" / "a" / "pipe.png")
    (root / "photo" / "a" / "broken.png").write_bytes(b"no image")
    (root / "photo" / "a" / "nowhere.png").symlink_to(root / "gone.png")
    about = folder(str(root), skip_unreadable=True).about
    assert about.startswith(
        "folder: 2 domains of 2 classes, 20 images, 7 left out (1 .HEIC, 1 .heic, 1 .jp2, 1 broken links, "
        "1 others, 1 pipes or devices, 1 unreadable; such as /"
    )
    parts = made(tmp_path / "parts", *crossed("train test"))
    assert folder(str(parts), tasks=1).about == "folder: 2 classes, 10 + 10 images"


def test_formats_beside_the_usual_are_read(tmp_path: Path) -> None:
    root = made(tmp_path, "a", "b")
    for number, (suffix, kind) in enumerate((("jfif", "JPEG"), ("jpe", "JPEG"), ("avif", "AVIF"))):
        Image.new("RGB", (8, 8), (200, 0, 0)).save(root / "a" / f"new{number}.{suffix}", kind)
    stream = folder(str(root), tasks=1, image_size=4)
    assert len(stream.train[0]) + len(stream.test[0]) == 13
    assert "left out" not in stream.about
    np.asarray(stream.train[0].images)


def linked(root: Path, link: str, target: Path) -> Path:
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(target)
    return root


@pytest.mark.parametrize("link", ["c", "a/deep", "a/9.png", "train/c"])
def test_links_out_of_the_folder_are_refused_unless_followed(tmp_path: Path, link: str) -> None:
    root, outside = made(tmp_path, "a", "b"), tmp_path / "outside"
    paint(outside)
    linked(root, link, outside / "0.png" if link.endswith("png") else outside)
    if link == "train/c":
        (root / "a").rename(root / "train" / "a")
        (root / "b").rename(root / "train" / "b")
    with pytest.raises(DataError, match=rf"{link} is a link to .*outside.*follow_links=true"):
        folder(str(root), tasks=1)
    stream = folder(str(root), tasks=1, follow_links=True)
    assert len(stream.train[0]) + len(stream.test[0]) == (11 if link.endswith("png") else 15)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("link", ["a/up", "a/root", "a/self", "a/to_b/to_a", "c"])
def test_links_in_a_circle_end(tmp_path: Path, link: str, follow: bool) -> None:
    root = made(tmp_path, "a", "b")
    targets = {"a/up": root / "a", "a/root": root, "a/self": root / "a" / "self", "c": root}
    if link == "a/to_b/to_a":
        linked(root, "a/to_b", root / "b")
        linked(root, "b/to_a", root / "a")
    else:
        linked(root, link, targets[link])
    stream = folder(str(root), tasks=1, follow_links=follow)
    assert tuple(stream.class_names) == AB
    # With followed links between the classes each class has the other's images too.
    twice = follow and link == "a/to_b/to_a"
    assert len(stream.train[0]) + len(stream.test[0]) == (20 if twice else 10)
    if link != "a/self":
        assert "left out" in stream.about


def test_links_within_the_folder(tmp_path: Path) -> None:
    root = made(tmp_path, "a", "b")
    linked(root, "a/again.png", root / "b" / "0.png")
    linked(root, "b/readme.txt", Path("/etc/hostname"))
    stream = folder(str(root), tasks=1)
    assert len(stream.train[0]) + len(stream.test[0]) == 11
    linked(root, "c", root / "a")
    stream = folder(str(root), tasks=1)
    assert tuple(stream.class_names) == AB
    assert "1 linked folders" in stream.about


def test_a_root_that_is_a_link_is_read(tmp_path: Path) -> None:
    made(tmp_path, "a", "b")
    linked(tmp_path, "mine", tmp_path / "photos")
    assert tuple(folder(str(tmp_path / "mine"), tasks=1).class_names) == AB


HOSTILE = ["a\x1b]0;owned\x07", "b\u202egnp", "c\nd", "=cmd", "<b>$x^", os.fsdecode(b"caf\xe9")]


def test_hostile_names_of_folders_are_harmless(tmp_path: Path) -> None:
    stream = folder(str(made(tmp_path, *HOSTILE)), tasks=2, image_size=4)
    text = stream.name + stream.about + "".join(stream.class_names)
    assert text.isprintable()
    text.encode()
    assert "caf\\udce9" in stream.class_names
    images, _ = stream.train[1].take(np.arange(4))
    assert images.shape == (4, 4, 4, 3)


def test_errors_are_harmless_too(tmp_path: Path) -> None:
    root = made(tmp_path, "a\x1b[31m", "b")
    (root / "c\x1b[31m\u202e").mkdir()
    with pytest.raises(DataError, match="there is no image in it") as told:
        folder(str(root))
    assert str(told.value).isprintable()


def test_a_stream_of_arrays_has_harmless_names_too() -> None:
    images, labels = np.zeros((20, 4, 4, 3), np.uint8), np.repeat([0, 1], 10)
    stream = Stream.from_arrays(images, labels, 1, class_names=["a\x1b[31m", "cafe\u0301 "])
    assert tuple(stream.class_names) == ("a\\x1b[31m", "café")
    with pytest.raises(DataError, match="are both the class café"):
        Stream.from_arrays(images, labels, 1, class_names=["café", "cafe\u0301"])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Training", "train"),
        ("train2017", "train"),
        ("test-set", "test"),
        ("VALIDATION", "test"),
        ("eval", "test"),
        ("value", None),
        ("testament", None),
        ("training_shoes", None),
        ("seg_train", None),
    ],
)
def test_names_of_parts(name: str, part: str | None) -> None:
    assert part_of(name) == part


def test_parts_are_not_learnt_as_classes(tmp_path: Path) -> None:
    root = made(tmp_path, *crossed("train test"))
    with pytest.raises(DataError, match=r"test is no class but a part .* such as .*train"):
        class_files(Folders(root))
    assert {name for _, name in class_files(Folders(root / "train"))} == {"a", "b"}
    assert len(class_files(Folders(made(tmp_path / "w", *crossed("wrapper"))))) == 10
    with pytest.raises(DataError, match="no such folder"):
        class_files(Folders(tmp_path / "gone"))
