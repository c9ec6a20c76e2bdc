"""Each image's own gradient, against one backward pass per image in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Generator, Tensor, nn

from cl.models import nano
from cl.models.heads import CosineHead, LinearHead
from cl.models.lora import GatedLoRALayer, LoRALayer, inject_lora, lora_layers
from cl.ops.fisher import diagonal_fisher
from tests.cl.ops.per_sample_reference import Net, assert_exact, found, loop, objective


def scrambled(norm: nn.Module) -> nn.Module:
    """A norm whose weights and statistics are not ones and zeros."""
    generator = Generator().manual_seed(3)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return norm


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "linear over tokens": (lambda: Net(nn.Linear(4, 6), 6), (7, 4)),
    "linear over a grid": (lambda: Net(nn.Linear(4, 5, bias=False), 2), (2, 3, 4)),
    "convolution": (lambda: Net(nn.Conv2d(3, 6, 3, padding=1), 6), (3, 6, 6)),
    "patches": (lambda: Net(nn.Conv2d(3, 6, 2, stride=2, bias=False), 6), (3, 6, 6)),
    "strided": (lambda: Net(nn.Conv2d(3, 6, (3, 2), (2, 1), (0, 1)), 6), (3, 7, 6)),
    "dilated": (lambda: Net(nn.Conv2d(3, 6, 3, dilation=2, padding=2), 6), (3, 6, 6)),
    "groups": (lambda: Net(nn.Conv2d(4, 8, 3, stride=2, groups=2), 8), (4, 7, 7)),
    "depthwise": (lambda: Net(nn.Conv2d(4, 4, 5, padding=2, groups=4), 4), (4, 6, 6)),
    "reflecting": (
        lambda: Net(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), 4),
        (3, 5, 5),
    ),
    "layer norm": (lambda: Net(scrambled(nn.LayerNorm(4)), 4), (7, 4)),
    "layer norm of two dimensions": (lambda: Net(scrambled(nn.LayerNorm((7, 4))), 4), (7, 4)),
    "batch norm": (lambda: Net(scrambled(nn.BatchNorm2d(3)), 3), (3, 4, 4)),
    "batch norm of vectors": (lambda: Net(scrambled(nn.BatchNorm1d(4)), 4), (4,)),
    "group norm": (lambda: Net(scrambled(nn.GroupNorm(2, 4)), 4), (4, 3, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer(kind: str) -> None:
    torch.manual_seed(0)
    make, shape = KINDS[kind]
    assert_exact(make(), shape)


@pytest.mark.parametrize("count", [1, 2, 33, 70])
def test_any_number_of_images(count: int) -> None:
    torch.manual_seed(0)
    assert_exact(Net(nn.Conv2d(3, 6, 3), 6), (3, 5, 5), count=count)


def test_few_numbers_at_a_time() -> None:
    torch.manual_seed(0)
    model = Net(nn.Linear(4, 6), 6).double()
    images, labels = torch.randn(9, 7, 4, dtype=torch.float64), torch.arange(9) % 3
    for name, value in found(model, images, labels, numbers=50)[0].items():
        torch.testing.assert_close(value, loop(model, images, labels)[name], rtol=1e-9, atol=1e-13)


class Offsets(nn.Module):
    """A class token, a position embedding, scales and offsets, as vision transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.positions = nn.Parameter(torch.randn(1, 8, 4))
        self.scale = nn.Parameter(torch.randn(4))
        self.factor = nn.Parameter(torch.randn(()))
        self.column = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        x = self.factor * torch.tanh(x * self.scale)
        return torch.add(x.unflatten(1, (2, 4)), self.column.reshape(1, 1, -1, 1)).flatten(1, 2)


def test_tokens_positions_and_scales() -> None:
    torch.manual_seed(0)
    assert_exact(Net(Offsets(), 4), (7, 4))


def with_lora(kind: type[LoRALayer]) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    inject_lora(model, ["0"], rank=2, alpha=4.0, kind=kind)
    for layer in lora_layers(model):
        layer.reset(Generator().manual_seed(1))
        layer.B.data.normal_(generator=Generator().manual_seed(2))
    return model


@pytest.mark.parametrize("kind", [LoRALayer, GatedLoRALayer])
def test_low_rank_factors(kind: type[LoRALayer]) -> None:
    torch.manual_seed(0)
    slow = {"0.B"} if kind is LoRALayer else {"0.A", "0.B", "0.gate"}
    assert_exact(with_lora(kind), (4,), slow)


@pytest.mark.parametrize(("head", "slow"), [(LinearHead, set()), (CosineHead, {"2.weight"})])
def test_growing_heads(head: type[LinearHead] | type[CosineHead], slow: set[str]) -> None:
    torch.manual_seed(0)
    grown = head(6)
    for classes in (2, 3):
        grown.grow(classes, Generator().manual_seed(classes))
    nn.init.normal_(grown.weight)
    assert_exact(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), grown), (4,), slow)


MODELS: dict[str, tuple[int, dict[str, object], set[str]]] = {
    nano.NANO_NAME: (16, {"img_size": 16}, set()),
    "vit_tiny_patch16_224": (32, {"img_size": 32, "depth": 2, "init_values": 0.1}, set()),
    "deit_tiny_distilled_patch16_224": (32, {"img_size": 32, "depth": 2}, set()),
    "resnet18": (32, {}, set()),
    "resnext50_32x4d": (32, {"layers": (1, 1, 1, 1)}, set()),
    "convnext_atto": (32, {}, set()),
    "mobilenetv2_050": (32, {}, set()),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_timm(name: str) -> None:
    size, options, slow = MODELS[name]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **options)
    model = model.double().eval()
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    labels = torch.arange(3)
    gradients, fell_back = found(model, images, labels)
    assert fell_back == slow
    expected = loop(model, images, labels)
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        error = (gradients[key] - value).norm() / value.norm().clamp_min(1e-200)
        assert error < 1e-9, key


def test_a_windowed_transformer() -> None:
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=3, depths=(1, 1), img_size=56
    )
    model = model.double().eval()
    images, labels = torch.randn(2, 3, 56, 56, dtype=torch.float64), torch.arange(2)
    gradients, slow = found(model, images, labels)
    assert "layers.0.blocks.0.attn.qkv.weight" in slow
    assert "layers.0.blocks.0.mlp.fc1.weight" not in slow
    for key, value in loop(model, images, labels).items():
        assert (gradients[key] - value).norm() / value.norm().clamp_min(1e-200) < 1e-9, key


def test_nano_in_single_precision_is_within_1e_5_of_double_precision() -> None:
    model = timm.create_model(nano.NANO_NAME, pretrained=True, num_classes=3).eval()
    torch.manual_seed(0)
    nn.init.normal_(model.head.weight, std=0.02)
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
    fisher = diagonal_fisher(model, [(images, labels)], objective)
    each = loop(model.double(), images.double(), labels)
    for name, value in fisher.items():
        expected = each[name].square().mean(0)
        assert (value - expected).norm() <= 1e-5 * expected.norm(), name
