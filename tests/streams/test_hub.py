"""Data sets of Hugging Face, written here by `datasets` itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from cl.data.datasets import MissingDataError
from cl.errors import ConfigurationError, DataError
from cl.experiment import Experiment
from streams.blurry import si_blurry
from streams.own import hf
from tests.conftest import Compose, toy_images

NAMES = ["zebra", "ant", "bee"]


def table(count: int = 30, seed: int = 0, **columns: Any) -> Any:
    """Toy images of three classes as PNG files inside a table, and their labels as a ClassLabel."""
    toy = toy_images(count, 3, seed)
    content = {"image": list(toy.images), "label": toy.labels.tolist(), **columns}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    features |= {name: datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A data set with training and test split, as `save_to_disk` writes it."""
    made = datasets.DatasetDict({"train": table(30, 0), "test": table(12, 1)})
    made.save_to_disk(tmp_path / "both")
    return tmp_path / "both"


def assert_toy(stream: Any) -> None:
    """The images and labels are those of `table`."""
    assert stream.class_names == tuple(NAMES)
    for sets, toy in ((stream.train, toy_images(30, 3, 0)), (stream.test, toy_images(12, 3, 1))):
        assert sum(map(len, sets)) == len(toy)
        for part in sets:
            images, labels = part.take(np.arange(len(part)))
            assert np.array_equal(images, toy.images[part.rows])
            assert np.array_equal(labels, toy.labels[part.rows])


def test_what_save_to_disk_wrote(both: Path) -> None:
    stream = hf(str(both), tasks=3, image_size=8)
    assert stream.name == "both"
    assert_toy(stream)
    assert stream.fingerprint() == hf(str(both), tasks=3, image_size=8).fingerprint()


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    content = {"image": [*toy_images(29, 3, 0).images, None], "label": [0, 1, 2] * 10}
    datasets.Dataset.from_dict(content, features=features).save_to_disk(tmp_path / "holes")
    stream = hf(str(tmp_path / "holes"), tasks=1, image_size=8)
    with pytest.raises(DataError, match="row 29 has no image in the column image"):
        np.asarray(stream.train[0].images)


def test_labels_without_a_name_are_refused(tmp_path: Path) -> None:
    made = datasets.Dataset.from_dict(
        {"image": list(toy_images(6, 3, 0).images), "label": [0, 1, 7] * 2}
    )
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    made = made.cast_column("image", datasets.Image())
    made.info.features = features  # a cast would refuse it, a damaged file does not
    made.save_to_disk(tmp_path / "wrong")
    with pytest.raises(DataError, match="the column label holds 7, but has 3 names"):
        hf(str(tmp_path / "wrong"), tasks=1, image_size=8)


def test_classes_without_images_are_left_out(tmp_path: Path) -> None:
    made = table(30, 0)
    some = made.filter(lambda row: row["label"] != 1)
    some.save_to_disk(tmp_path / "some")
    stream = hf(str(tmp_path / "some"), tasks=2, image_size=8)
    assert stream.class_names == ("zebra", "bee")
    parts = datasets.DatasetDict({"train": some, "test": table(12, 1)})
    parts.save_to_disk(tmp_path / "parts")
    with pytest.raises(DataError, match="no training images of ant"):
        hf(str(tmp_path / "parts"), tasks=2, image_size=8)


def test_grey_of_16_bits_in_a_column_is_scaled(tmp_path: Path) -> None:
    grey = [np.full((8, 8), 257 * value, np.uint16) for value in range(30)]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    content = {"image": grey, "label": [0, 1, 2] * 10}
    datasets.Dataset.from_dict(content, features=features).save_to_disk(tmp_path / "deep")
    stream = hf(str(tmp_path / "deep"), tasks=1, image_size=8)
    assert [int(image.max()) for image in np.asarray(stream.train[0].images)] == list(range(30))


def test_a_folder_of_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `load_dataset` reads from the hub, from a local folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "files"
    folder.mkdir()
    table(30, 0).to_parquet(folder / "train.parquet")
    table(12, 1).to_parquet(folder / "test.parquet")
    assert_toy(hf(str(folder), tasks=3, image_size=8))


def test_without_a_test_split_a_share_is_held_out(tmp_path: Path) -> None:
    table(30).save_to_disk(tmp_path / "one")
    stream = hf(str(tmp_path / "one"), tasks=3, image_size=8)
    assert [len(part) for part in (*stream.train, *stream.test)] == [8, 8, 8, 2, 2, 2]
    rows = np.concatenate([part.rows for part in (*stream.train, *stream.test)])
    assert sorted(rows) == list(range(30))


def test_rows_that_were_filtered_and_shuffled_keep_their_labels(tmp_path: Path) -> None:
    table(60).shuffle(seed=3).select(range(5, 45)).save_to_disk(tmp_path / "part")
    stream = hf(str(tmp_path / "part"), tasks=1, image_size=8)
    images, labels = stream.train[0].take(np.arange(len(stream.train[0])))
    patterns = np.random.default_rng(7).integers(0, 256, (3, 8, 8, 3))
    distance = ((images[:, None].astype(float) - patterns) ** 2).sum((2, 3, 4))
    assert np.array_equal(distance.argmin(1), labels)


def test_labels_that_are_words_or_numbers(tmp_path: Path) -> None:
    words = [["cat", "dog"][row % 2] for row in range(30)]
    table(30, word=words).save_to_disk(tmp_path / "words")
    stream = hf(str(tmp_path / "words"), label="word", tasks=2, image_size=8)
    assert stream.class_names == ("cat", "dog")
    assert len(hf(str(tmp_path / "words"), tasks=3).class_names) == 3, "the ClassLabel is found"
    content = {"image": list(toy_images(30, 3, 0).images), "label": [10, 9] * 15}
    kinds = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    datasets.Dataset.from_dict(content, features=kinds).save_to_disk(tmp_path / "numbers")
    assert hf(str(tmp_path / "numbers"), tasks=2).class_names == ("9", "10")


def test_every_scenario_takes_it_and_it_trains(both: Path, compose: Compose) -> None:
    assert len(si_blurry(f"hf:{both}@8", tasks=3)) == 3
    overrides = ["stream._target_=streams.own.hf", f"+stream.name={both}", "+stream.tasks=3"]
    experiment = Experiment(compose(*overrides, "+stream.image_size=8"), loggers=[])
    assert experiment.run()["average_accuracy"] >= 0


def test_columns_and_splits_that_are_not_there(both: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"stream.label=lable: Did you mean label"):
        hf(str(both), label="lable")
    with pytest.raises(ConfigurationError, match=r"stream.test=tset: Did you mean test"):
        hf(str(both), test="tset")
    with pytest.raises(DataError, match=r"the column label holds no images"):
        hf(str(both), image="label")
    with pytest.raises(ConfigurationError, match="image_size=0"):
        hf(str(both), image_size=0)


def test_two_columns_that_may_be_it(tmp_path: Path) -> None:
    twice = table(30)
    twice = twice.add_column("fine", [1] * 30).cast_column(
        "fine", datasets.ClassLabel(names=["a", "b"])
    )
    twice.save_to_disk(tmp_path / "two")
    with pytest.raises(
        ConfigurationError, match=r"say which column it is: stream.label=… of label, fine"
    ):
        hf(str(tmp_path / "two"))


def test_a_split_without_labels(tmp_path: Path) -> None:
    unknown = table(12).remove_columns("label").add_column("label", [-1] * 12)
    unknown = unknown.cast_column("label", datasets.ClassLabel(names=NAMES))
    made = datasets.DatasetDict({"train": table(30), "test": unknown, "validation": table(12, 1)})
    made.save_to_disk(tmp_path / "hidden")
    with pytest.raises(DataError, match=r"hidden, test: there are images without a label"):
        hf(str(tmp_path / "hidden"))
    assert_toy(hf(str(tmp_path / "hidden"), test="validation", tasks=3, image_size=8))


def test_classes_that_differ(tmp_path: Path) -> None:
    made = {
        "train": table(30, word=["cat", "dog"] * 15),
        "test": table(12, word=["cat", "cow"] * 6),
    }
    datasets.DatasetDict(made).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match="test: cow: no class of the training images"):
        hf(str(tmp_path / "d"), label="word")


def test_labels_that_are_no_labels(tmp_path: Path) -> None:
    content = {"image": list(toy_images(4, 2, 0).images), "label": [0.5, 1.0, 0.5, 1.0]}
    kinds = datasets.Features(image=datasets.Image(), label=datasets.Value("float64"))
    datasets.Dataset.from_dict(content, features=kinds).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match=r"holds 0\.5; a label is a number or a word"):
        hf(str(tmp_path / "d"))


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    content = {"image": [{"bytes": b"no image", "path": None}] * 6, "label": [0, 1, 2] * 2}
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    datasets.Dataset.from_dict(content, features=kinds).save_to_disk(tmp_path / "bad")
    stream = hf(str(tmp_path / "bad"), tasks=1)
    with pytest.raises(DataError, match=r"bad, train, image \d cannot be decoded"):
        stream.train[0].take(np.arange(1))


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"stream.name=.*empty: it cannot be loaded"):
        hf(str(tmp_path / "empty"))
    monkeypatch.setenv("CL_OFFLINE", "1")
    with pytest.raises(MissingDataError, match="may have to be downloaded, and CL_OFFLINE is set"):
        hf("somebody/something")


def test_without_the_package(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match=r'pip install "palimpsest\[hf\]"'):
        hf(str(both))
