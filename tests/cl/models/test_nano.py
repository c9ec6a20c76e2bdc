"""The embedded backbone: a timm model like any other, with weights that know something."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from cl.models.nano import NANO_NAME, NANO_VERSION, nano_weights


@pytest.fixture(scope="module")
def distilled() -> nn.Module:
    """The backbone with its packaged weights."""
    return timm.create_model(NANO_NAME, pretrained=True).eval()


def test_timm_lists_it_and_builds_it_with_any_head() -> None:
    assert NANO_NAME in timm.list_models()
    images = torch.zeros(2, 3, 32, 32)
    assert timm.create_model(NANO_NAME)(images).shape == (2, 192)
    assert timm.create_model(NANO_NAME, num_classes=7)(images).shape == (2, 7)


def test_adapters_find_their_layers() -> None:
    names = {name for name, _ in timm.create_model(NANO_NAME).named_modules()}
    targets = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert {f"blocks.{block}.{target}" for block in range(4) for target in targets} <= names


@pytest.mark.parametrize("side", [8, 28, 64])
def test_other_image_sizes_resample_the_position_embedding(side: int) -> None:
    model = timm.create_model(NANO_NAME, pretrained=True, img_size=side).eval()
    assert model.pos_embed.shape[1] == 1 + (side // 4) ** 2
    assert model(torch.zeros(1, 3, side, side)).isfinite().all()


def test_the_file_is_small_and_carries_its_version() -> None:
    assert nano_weights().stat().st_size <= 6_000_000
    with safe_open(nano_weights(), "pt") as file:
        assert file.metadata()["version"] == NANO_VERSION
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_weights_load_strictly_and_are_those_timm_loads(distilled: nn.Module) -> None:
    model = timm.create_model(NANO_NAME)
    model.load_state_dict(load_file(nano_weights()), strict=True)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.eval()(images), distilled(images))


def digits(model: nn.Module) -> float:
    """Nearest class mean (cosine) on held-out scikit-learn digits, in per cent."""
    data = load_digits()
    pixels = torch.from_numpy(data.images).float()[:, None].expand(-1, 3, -1, -1) / 8 - 1
    images = F.interpolate(pixels, 32, mode="bicubic", antialias=True).clamp(-1, 1)
    with torch.inference_mode():
        x = F.normalize(torch.cat([model(part) for part in images.split(300)]), dim=1)
    y = torch.from_numpy(data.target)
    rows = np.arange(len(y))
    train, test = map(torch.from_numpy, train_test_split(rows, test_size=0.2, random_state=0))

    def mean(kind: int) -> Tensor:
        return F.normalize(x[train][y[train] == kind].mean(0), dim=0)

    means = torch.stack([mean(kind) for kind in range(10)])
    return 100 * ((x[test] @ means.T).argmax(1) == y[test]).float().mean().item()


def test_features_are_not_random(distilled: nn.Module) -> None:
    torch.manual_seed(0)
    random = timm.create_model(NANO_NAME).eval()
    assert digits(distilled) >= 85 > 60 > digits(random)
