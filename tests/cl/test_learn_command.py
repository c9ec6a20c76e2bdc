"""A learner that was saved is opened again, learns a folder of images, and is asked about others."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from cl import learn, predict
from cl.data import ArrayDataset
from cl.learner import Learner
from cl.models import nano
from tests.conftest import Compose, toy_images, toy_stream


def write(folder: Path, data: ArrayDataset, names: dict[int, str]) -> None:
    for number, label in enumerate(data.targets.tolist()):
        if label in names:
            place = folder / names[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data.images[number]).save(place / f"{number:03d}.png")


@pytest.fixture
def saved(compose: Compose, tmp_path: Path) -> Path:
    learner = Learner(compose("strategy=simplecil", "backbone.pretrained=true"), toy_stream().info)
    learner.learn(toy_stream().experience(0))
    learner.save(tmp_path / "old")
    return tmp_path / "old"


def test_from_the_shell(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "new_images", toy_images(48, 4, 0), {2: "cat", 3: "dog"})
    write(tmp_path / "asked", toy_images(24, 4, 1), {0: "class 0", 2: "cat", 3: "dog"})
    weights = tmp_path / "model.safetensors"
    learn.main(
        [str(saved), str(tmp_path / "new_images"), str(tmp_path / "new"), "--export", str(weights)]
    )
    assert "Learnt 24 images of 2 classes, 2 of them new" in capsys.readouterr().out
    predict.main([str(tmp_path / "new"), str(tmp_path / "asked")])
    answers = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    right = [Path(each["image"]).parent.name == each["class"] for each in answers]
    assert len(right) == 18
    assert np.mean(right) > 0.8
    assert all(0.25 < float(each["share"]) <= 1 for each in answers)
    plain = timm.create_model(nano.NANO_NAME, num_classes=4, img_size=8).eval()
    plain.load_state_dict(load_file(weights))
    opened = Learner.load(tmp_path / "new")
    images = toy_images(24, 4, 1).images
    with torch.no_grad():
        logits = plain(opened.model.transform(torch.from_numpy(images)))
    assert torch.equal(logits.argmax(1), torch.from_numpy(opened.predict(images)))


def test_names_from_outside_in_the_answers(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {2: "=cmd", 3: "dog\x1b[31m\n"}
    write(tmp_path / "new_images", toy_images(48, 4, 0), names)
    learn.main([str(saved), str(tmp_path / "new_images"), str(tmp_path / "new")])
    assert capsys.readouterr().out.replace("\n", "").isprintable()
    asked = toy_images(24, 4, 1).images[0]
    monkeypatch.chdir(tmp_path)
    Image.fromarray(asked).save("=1.png")
    Image.fromarray(asked).save("x\x1b[2J.png")
    predict.main([str(tmp_path / "new"), "=1.png"])
    write(tmp_path / "asked", toy_images(24, 4, 1), names)
    predict.main([str(tmp_path / "new"), str(tmp_path / "asked")])
    predict.main([str(tmp_path / "new"), "x\x1b[2J.png"])
    told = capsys.readouterr().out
    assert told.replace("\n", "").isprintable()
    answers = list(csv.reader(io.StringIO(told)))
    assert "'=1.png" in [each[0] for each in answers]
    assert "x\\x1b[2J.png" in [each[0] for each in answers]
    assert {each[1] for each in answers} >= {"'=cmd", "dog\\x1b[31m"}


def test_parts_are_no_classes(saved: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / "images" / part, toy_images(12, 4, 0), {2: "cat", 3: "dog"})
    with pytest.raises(SystemExit, match="test is no class but a part of a data set"):
        learn.main([str(saved), str(tmp_path / "images"), str(tmp_path / "new")])


def test_from_python_as_from_a_stream(compose: Compose) -> None:
    stream = toy_stream()
    first, second = (Learner(compose("strategy=olora"), stream.info) for _ in range(2))
    for index in range(2):
        experience = stream.experience(index)
        first.learn(experience)
        data = experience.train
        images, labels = data.take(np.arange(len(data)))
        second.learn(images, [stream.class_names[label] for label in labels])
    assert first.class_names == second.class_names == ("class 0", "class 1", "class 2", "class 3")
    test = stream.test[1]
    assert torch.equal(first.logits(test), second.logits(test))


def test_a_class_that_comes_back_is_no_new_one(compose: Compose) -> None:
    learner = Learner(compose("strategy=simplecil"), toy_stream().info)
    images = toy_images(12, 3, 0).images
    learner.learn(images[:6], ["a", "b"] * 3)
    learner.learn(images[6:], ["b", "c"] * 3)
    assert learner.class_names == ("a", "b", "c")
    assert learner.experiences == 2
    assert learner.model.head.counts.tolist() == [3, 6, 3]  # type: ignore[union-attr]


@pytest.mark.parametrize("program", ["learn", "predict"])
def test_an_empty_folder_is_named(saved: Path, tmp_path: Path, program: str) -> None:
    (tmp_path / "empty").mkdir()
    arguments = [str(saved), str(tmp_path / "empty")]
    main, more = (learn.main, [str(tmp_path / "new")]) if program == "learn" else (predict.main, [])
    with pytest.raises(SystemExit, match="there are no images"):
        main([*arguments, *more])
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not empty"):
        learn.main([str(saved), str(tmp_path), str(saved)])


def test_no_learner_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"learner\.json|checksums\.json"):
        predict.main([str(tmp_path), str(tmp_path)])


def test_images_are_read_as_those_that_were_learnt(compose: Compose, tmp_path: Path) -> None:
    learner = Learner(compose("strategy=er"), toy_stream().info)
    learner.learn(toy_images(12, 2, 0).images[..., :1], [0, 1] * 6)
    write(tmp_path, toy_images(12, 2, 1), {0: "2", 1: "3"})
    files = sorted(tmp_path.glob("*/*.png"))
    images = learn.read_images(files, learner)
    assert images.shape == (12, 8, 8, 1)
    learner.learn(images, [file.parent.name for file in files])
    assert learner.class_names == ("0", "1", "2", "3")
