from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from cl.config import BackboneConfig
from cl.errors import ConfigurationError, WeightsError
from cl.models.backbone import create_backbone


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty CL_WEIGHTS_DIR, and no network."""
    monkeypatch.setenv("CL_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_input_and_statistics_are_those_of_timm() -> None:
    backbone = create_backbone(BackboneConfig("resnet18", pretrained=False))
    assert backbone.transform.size == 224
    assert backbone.transform.mean == (0.485, 0.456, 0.406)
    assert backbone.features == 512
    assert backbone.pretrained == "random"


def test_weights_from_the_folder_with_position_embeddings_resampled(weights: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    save_file(source.state_dict(), weights / "vit_tiny_patch16_224.safetensors")
    backbone = create_backbone(BackboneConfig("vit_tiny_patch16_224", image_size=32))
    assert backbone.pretrained == "vit_tiny_patch16_224"
    assert backbone.module.pos_embed.shape == (1, 1 + 4, 192)
    assert torch.equal(backbone.module.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
    assert backbone.module(torch.randn(2, 3, 32, 32)).shape == (2, 192)


def test_missing_weights_name_the_file_and_the_place(weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"vit_tiny_patch16_224\.safetensors") as error:
        create_backbone(BackboneConfig("vit_tiny_patch16_224", image_size=32))
    for words in (str(weights), "CL_WEIGHTS_DIR", "backbone.pretrained=false", "backbone=nano"):
        assert words in str(error.value)


def test_weights_that_do_not_fit_say_which_keys_and_shapes(weights: Path) -> None:
    state = timm.create_model(
        "vit_tiny_patch16_384", num_classes=0, embed_dim=96, depth=12, num_heads=3, img_size=224
    ).state_dict()
    state["blocks.0.extra"] = torch.zeros(1)
    del state["norm.bias"]
    file = weights / "other.safetensors"
    save_file(state, file)
    with pytest.raises(WeightsError) as error:
        create_backbone(BackboneConfig("vit_tiny_patch16_224", image_size=224, weights=str(file)))
    message = str(error.value)
    assert "missing: norm.bias (192,)" in message
    assert "not in the model: blocks.0.extra" in message
    assert "shape of" in message
    assert len(message.splitlines()) < 15


def test_a_damaged_file_is_recognised(weights: Path) -> None:
    file = weights / "vit_tiny_patch16_224.safetensors"
    file.write_bytes(b"not a safetensors file")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        create_backbone(BackboneConfig("vit_tiny_patch16_224"))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(WeightsError, match="there is no such file"):
        create_backbone(BackboneConfig("resnet18", weights="nowhere.safetensors"))


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean resnet18"):
        create_backbone(BackboneConfig("resnet181"))


def test_a_size_that_the_backbone_cannot_take() -> None:
    with pytest.raises(
        ConfigurationError, match="image_size=8: vit_tiny_patch16_224 cannot take it"
    ):
        create_backbone(BackboneConfig("vit_tiny_patch16_224", image_size=8, pretrained=False))


def test_any_size_for_a_convolutional_network() -> None:
    backbone = create_backbone(BackboneConfig("resnet18", image_size=48, pretrained=False))
    assert backbone.transform.size == 48


class TokensOnly(VisionTransformer):
    """Gives all tokens, as networks made for dense tasks do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.forward_features(x)
        return tokens


class TwoAnswers(TokensOnly):
    """Gives two tensors, as a distilled network does while it is trained."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.forward_features(x)
        return features[:, 0], features[:, 1]


class NoPooling(TokensOnly):
    """An encoder for another network to read: nobody knows how to make a vector of its tokens."""

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("kind", [TokensOnly, TwoAnswers, NoPooling])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_tokens_and_tuples_are_pooled_as_by_the_classifier(
    kind: type[VisionTransformer], pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"img_size": 8, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}

    def make(name: str, num_classes: int, **_: object) -> VisionTransformer:
        torch.manual_seed(0)
        return kind(global_pool=pool, num_classes=num_classes, **size)

    monkeypatch.setattr(timm, "is_model", lambda name: True)
    monkeypatch.setattr(timm, "create_model", make)
    config = BackboneConfig(name="tokens", image_size=8, pretrained=False)
    if kind is NoPooling:
        with pytest.raises(ConfigurationError, match="no single vector for an image"):
            create_backbone(config)
        return
    backbone = create_backbone(config)
    assert backbone.features == 24
    stock = VisionTransformer(global_pool=pool, num_classes=0, **size).eval()
    stock.load_state_dict(backbone.module.state_dict())
    images = torch.randn(2, 3, 8, 8)
    copied = deepcopy(backbone.module)
    with torch.no_grad():
        assert torch.equal(backbone.module(images), stock(images))
        copied.patch_embed.proj.bias += 1
        assert not torch.equal(copied(images), stock(images)), "a copy has weights of its own"
        assert torch.equal(backbone.module(images), stock(images))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_weights_that_are_no_numbers_or_give_none(weights: Path, value: float) -> None:
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32).state_dict()
    state["patch_embed.proj.weight"].fill_(value)
    save_file(state, weights / "x.safetensors")
    with pytest.raises(WeightsError, match="no number"):
        create_backbone(
            BackboneConfig(
                "vit_tiny_patch16_224", image_size=32, weights=str(weights / "x.safetensors")
            )
        )


def test_a_pipe_or_a_folder_in_the_place_of_weights(weights: Path) -> None:
    os.mkfifo(weights / "pipe")
    for place in (weights / "pipe", weights):
        with pytest.raises(WeightsError, match="is no file"):
            create_backbone(
                BackboneConfig("vit_tiny_patch16_224", image_size=32, weights=str(place))
            )
