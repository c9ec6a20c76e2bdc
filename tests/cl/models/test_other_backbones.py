"""Low-rank methods on a backbone that reads the weight of qkv, and on one with two classifiers."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from cl.learner import Learner
from tests.conftest import Compose, toy_stream


@pytest.mark.parametrize("strategy", ["olora", "osft"])
@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "deit_tiny_distilled_patch16_224"])
def test_they_learn_and_the_exported_network_does_the_same(
    compose: Compose, tmp_path: Path, strategy: str, name: str
) -> None:
    size, stream = 14 if "eva" in name else 16, toy_stream(images=16)
    backbone = [f"backbone.name={name}", f"backbone.image_size={size}", "trainer.epochs=1"]
    learner = Learner(compose(f"strategy={strategy}", *backbone), stream.info)
    before = {n: p.detach().clone() for n, p in learner.model.backbone.named_parameters()}
    for index in range(2):
        learner.learn(stream.experience(index))
    moved = [n for n, p in learner.model.backbone.named_parameters() if (p != before[n]).any()]
    assert any("attn.qkv" in n for n in moved)
    learner.export(tmp_path / "plain.safetensors")
    plain = timm.create_model(name, num_classes=4, img_size=size).eval()
    plain.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    with torch.inference_mode():
        for batch, logits in learner.answers(stream.test[0]):
            torch.testing.assert_close(logits, plain(batch.images), rtol=1e-4, atol=1e-4)
