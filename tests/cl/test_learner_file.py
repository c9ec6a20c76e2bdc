"""A stored learner whose files cannot be right is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from safetensors.torch import load_file, save_file

import cl.checkpoint
from cl.checkpoint import seal
from cl.errors import WeightsError
from cl.learner import Learner
from tests.conftest import Compose, toy_stream


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = ["backbone.image_size=8", "backbone.pretrained=false", "trainer.device=cpu"]
    with initialize_config_module("configs", version_base="1.3"):
        cfg = compose("config", [*small, "strategy=naive", "stream=custom"])
    learner = Learner(cfg, toy_stream().info)
    learner.learn(toy_stream().experience(0))
    folder: Path = tmp_path_factory.mktemp("learner")
    learner.save(folder)
    return folder


def copy(stored: Path, target: Path) -> Path:
    for file in stored.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("format", 999, "written by a newer version"),
        ("format", "1", "format cannot be"),
        ("experiences", -5, "experiences cannot be -5"),
        ("experiences", 1.5, "experiences cannot be"),
        ("experiences", True, "experiences cannot be"),
        ("experiences", 0, "class_names cannot be"),
        ("class_names", "cats", "class_names cannot be"),
        ("class_names", ["cat", 3], "class_names cannot be"),
        ("image_shape", [8, 8], "image_shape cannot be"),
        ("image_shape", [8, 8, -3], "image_shape cannot be"),
        ("augmentation", "crop_flp", "augmentation cannot be"),
        ("augmentation", ["none"], "augmentation cannot be"),
        ("pretrained", None, "pretrained cannot be"),
        ("recipe", {}, "recipe cannot be"),
        ("recipe", [], "recipe cannot be"),
        ("stream", {"name": "toy"}, "stream cannot be"),
        ("run", 7, "run cannot be"),
    ],
)
def test_what_cannot_be_is_refused(
    stored: Path, tmp_path: Path, entry: str, value: Any, said: str
) -> None:
    file = copy(stored, tmp_path) / "learner.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, entry: value}))
    seal(tmp_path)  # by someone who knows how
    with pytest.raises(WeightsError, match=said):
        Learner.load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"'])
def test_other_json_is_refused(stored: Path, tmp_path: Path, content: str) -> None:
    (copy(stored, tmp_path) / "learner.json").write_text(content)
    seal(tmp_path)
    with pytest.raises(WeightsError, match="must hold names and values"):
        Learner.load(tmp_path)


@pytest.mark.parametrize("sums", ["{}", "[]", '{"learner.json": ""}'])
def test_an_empty_seal_is_damage(stored: Path, tmp_path: Path, sums: str) -> None:
    (copy(stored, tmp_path) / "checksums.json").write_text(sums)
    with pytest.raises(WeightsError, match="is damaged"):
        Learner.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("model.head.weight", lambda t: t * torch.nan, "no number"),
        ("model.head.weight", lambda t: t / 0, "no number"),
        ("model.head.weight", lambda t: t[:, :-1], "does not fit"),
        ("model.backbone.norm.weight", lambda t: t[:-1], "does not fit"),
        ("model.backbone.norm.weight", lambda t: t.double(), "does not fit"),
        ("model.extra", lambda t: torch.zeros(1), r"no model\.extra"),
    ],
)
def test_tensors_that_do_not_fit(
    stored: Path, tmp_path: Path, name: str, change: Any, said: str
) -> None:
    file = copy(stored, tmp_path) / "state.safetensors"
    tensors = load_file(file)
    tensors[name] = change(tensors.get(name)).contiguous()
    save_file(tensors, file)
    seal(tmp_path)
    with pytest.raises(WeightsError, match=said):
        Learner.load(tmp_path)


def test_a_save_that_fails_leaves_the_earlier_learner(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, folder = toy_stream(), tmp_path / "mine"
    learner = Learner(compose("strategy=simplecil"), stream.info)
    learner.learn(stream.experience(0))
    learner.save(folder)
    learner.learn(stream.experience(1))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for place in ("save_file", "_replace", "flush"):
        with monkeypatch.context() as patched:
            patched.setattr(cl.checkpoint, place, full)
            with pytest.raises(OSError, match="No space"):
                learner.save(folder)
        assert Learner.load(folder).experiences == 1
    assert len(list(folder.iterdir())) == 4, "nothing is left over"
    learner.save(folder)
    assert Learner.load(folder).experiences == 2


def change(folder: Path, deed: Any) -> None:
    """Edit learner.json and seal it again, as someone who knows how."""
    content = json.loads((folder / "learner.json").read_text())
    deed(content)
    (folder / "learner.json").write_text(json.dumps(content))
    seal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strategy:loss", {"value": 1}),  # a hook
        ("strategy:state_dict", {"value": None}),
        ("strategy:__class__", {"value": 1}),
        ("strategy:_modules", {"dict": []}),
        ("strategy:no name", {"value": 1}),
        ("strategy:x", {"tensor": "gone"}),
        ("strategy:x", {"value": [1]}),
        ("strategy:x", {"set": [{"list": []}]}),
        ("strategy:x", {"built": None, "value": 3}),
        ("strategy:x", {"object": {"a": {"value": 1}}}),
        ("strategy:x", {"module": []}),
        ("strategy:x", {"filled": []}),
        ("strategy:x", {"unknown": 1}),
        ("strategy:x", 3),
        ("model:cache", {"value": None}),  # the framework's
        ("nowhere:x", {"value": 1}),
    ],
)
def test_attributes_that_cannot_have_been_kept(
    stored: Path, tmp_path: Path, key: str, value: Any
) -> None:
    change(copy(stored, tmp_path), lambda content: content.update(attributes={key: value}))
    with pytest.raises(WeightsError, match=r"cannot be what was kept|This learner has no"):
        Learner.load(tmp_path)


@pytest.mark.parametrize("names", [["\x1b[31mred"], [" cat"], ["cafe\u0301"], [""]])
def test_names_are_those_that_classes_can_have(
    stored: Path, tmp_path: Path, names: list[str]
) -> None:
    change(copy(stored, tmp_path), lambda content: content.update(class_names=names))
    with pytest.raises(WeightsError, match="class_names cannot be"):
        Learner.load(tmp_path)


def test_names_and_head_must_fit(stored: Path, tmp_path: Path) -> None:
    change(copy(stored, tmp_path), lambda content: content["class_names"].append("one more"))
    with pytest.raises(WeightsError, match="answers for"):
        Learner.load(tmp_path)


def test_a_tensor_under_another_name_is_noticed(tmp_path: Path, compose: Compose) -> None:
    learner = Learner(compose("strategy=ewc"), toy_stream().info)
    learner.learn(toy_stream().experience(0))
    learner.save(tmp_path)
    file = tmp_path / "state.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.startswith("strategy."))
    tensors[f"{name}x"] = tensors.pop(name)
    save_file(tensors, file)
    seal(tmp_path)
    with pytest.raises(WeightsError, match=r"not those that were written|lacks"):
        Learner.load(tmp_path)


def test_an_enormous_file_is_not_read_to_its_end(stored: Path, tmp_path: Path) -> None:
    copy(stored, tmp_path)
    for file, size in (("state.safetensors", 1 << 36), ("learner.json", 1 << 36)):
        with (tmp_path / file).open("r+b") as content:
            content.truncate(size)
        with pytest.raises(WeightsError, match="is damaged"):
            Learner.load(tmp_path)


@pytest.mark.parametrize("entry", ["image_shape", "class_names", "recipe", "attributes", "format"])
def test_an_entry_that_is_missing(stored: Path, tmp_path: Path, entry: str) -> None:
    change(copy(stored, tmp_path), lambda content: content.pop(entry))
    with pytest.raises(WeightsError, match=entry):
        Learner.load(tmp_path)
