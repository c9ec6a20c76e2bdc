"""A learner outlives its run: it is saved, opened, exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from cl.checkpoint import seal
from cl.errors import ConfigurationError, WeightsError
from cl.learner import Learner
from cl.models import nano
from tests.conftest import Compose, toy_stream


def taught(compose: Compose, *overrides: str) -> Learner:
    stream = toy_stream()
    learner = Learner(compose(*overrides), stream.info)
    for index in range(2):
        learner.learn(stream.experience(index))
    return learner


def test_predicts_classes_of_images(compose: Compose) -> None:
    learner = taught(compose, "strategy=simplecil")
    images, labels = toy_stream().test[1].take(torch.arange(6).numpy())
    answers = learner.predict(images)
    assert answers.shape == (6,)
    assert answers.dtype == labels.dtype
    assert learner.class_names == ("class 0", "class 1", "class 2", "class 3")


@pytest.mark.parametrize("strategy", ["naive", "olora", "simplecil"])
def test_plain_timm_loads_the_export_and_agrees(
    compose: Compose, tmp_path: Path, strategy: str
) -> None:
    learner = taught(compose, f"strategy={strategy}")
    learner.export(tmp_path / "model.safetensors")
    plain = timm.create_model(nano.NANO_NAME, num_classes=4, img_size=8).eval()
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images, _ = toy_stream().test[1].take(torch.arange(12).numpy())
    with torch.no_grad():
        logits = plain(learner.model.transform(torch.from_numpy(images)))
    assert torch.equal(logits.argmax(1), torch.from_numpy(learner.predict(images)))
    assert json.loads((tmp_path / "model.classes.json").read_text())[3] == "class 3"


def test_opening_runs_no_code_of_strangers(compose: Compose, tmp_path: Path) -> None:
    taught(compose, "strategy=naive").save(tmp_path)
    file = tmp_path / "learner.json"
    content = json.loads(file.read_text())
    content["recipe"]["strategy"]["_target_"] = "os.system"
    content["recipe"]["strategy"]["command"] = f"touch {tmp_path}/broken"
    file.write_text(json.dumps(content))
    seal(tmp_path)
    with pytest.raises(ConfigurationError, match=r"trust=\[os\]"):
        Learner.load(tmp_path)
    assert not (tmp_path / "broken").exists()


def test_a_learner_without_its_tensors_is_an_error(compose: Compose, tmp_path: Path) -> None:
    taught(compose, "strategy=naive").save(tmp_path)
    (tmp_path / "state.safetensors").unlink()
    with pytest.raises(WeightsError, match="is missing"):
        Learner.load(tmp_path)


def test_one_wrong_bit_is_noticed(compose: Compose, tmp_path: Path) -> None:
    taught(compose, "strategy=naive").save(tmp_path)
    file = tmp_path / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="checksum"):
        Learner.load(tmp_path)


def test_unknown_augmentation_names_the_valid_ones(compose: Compose) -> None:
    with pytest.raises(ConfigurationError, match="crop_flip"):
        Learner(compose("trainer.augment=crop_flp"), toy_stream().info)


@pytest.mark.parametrize("device", ["gpux", f"cpu:{10**30}"])
def test_unknown_device_says_what_to_type(compose: Compose, device: str) -> None:
    with pytest.raises(ConfigurationError, match="Use auto, cpu, cuda"):
        Learner(compose(f"trainer.device={device}"), toy_stream().info)
