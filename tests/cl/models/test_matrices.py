"""A convolution is a matrix that multiplies patches, and low-rank and subspace layers treat it as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.anatomy import find_targets
from cl.models.lora import GatedLoRALayer, LoRALayer, ScaledLoRALayer, inject_lora
from cl.models.matrices import MatrixLayer, mix, multiply, vectors
from cl.models.subspace import HeldBlock, HeldFactors, SubspaceLayer
from tests.conftest import Compose, toy_stream

LAYERS: list[tuple[MatrixLayer, tuple[int, ...]]] = [
    (nn.Linear(6, 8), (2, 5, 6)),
    (nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 9, 7)),
    (nn.Conv2d(3, 8, (3, 1), dilation=2, bias=False), (2, 3, 9, 7)),
    (nn.Conv2d(6, 8, 1), (2, 6, 4, 4)),
]


def as_rows(layer: MatrixLayer, y: torch.Tensor) -> torch.Tensor:
    """The output vectors of a layer, N × out."""
    return y.flatten(0, -2) if isinstance(layer, nn.Linear) else y.permute(0, 2, 3, 1).flatten(0, 2)


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_a_layer_multiplies_its_vectors_by_its_matrix(
    layer: MatrixLayer, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    matrix = layer.weight.detach().flatten(1)
    expected = layer(x)
    assert torch.equal(multiply(layer, x, matrix, layer.bias), expected)
    product = vectors(layer, x) @ matrix.mT
    if layer.bias is not None:
        product = product + layer.bias
    torch.testing.assert_close(as_rows(layer, expected), product)
    two = torch.randn(2, matrix.shape[1])
    torch.testing.assert_close(as_rows(layer, multiply(layer, x, two)), vectors(layer, x) @ two.mT)
    more = torch.randn(5, 8)
    mixed = as_rows(layer, expected) @ more.mT
    torch.testing.assert_close(as_rows(layer, mix(layer, expected, more)), mixed)


@pytest.mark.parametrize(("layer", "shape"), LAYERS[1:])
@pytest.mark.parametrize("kind", [LoRALayer, GatedLoRALayer, ScaledLoRALayer])
def test_lora_of_a_convolution_is_the_convolution_with_the_changed_kernel(
    layer: nn.Conv2d, shape: tuple[int, ...], kind: type[LoRALayer]
) -> None:
    torch.manual_seed(0)
    x, kernel = torch.randn(shape), layer.weight.detach().clone()
    adapted = kind(layer, rank=2, alpha=4)
    if isinstance(adapted, ScaledLoRALayer):
        adapted.share(nn.Parameter(torch.tensor([0.5, 2.0])))
    for task in (0, 1):
        adapted.reset(torch.Generator().manual_seed(task))
        adapted.B.data.normal_()
        if task == 0 and isinstance(adapted, ScaledLoRALayer):
            adapted.keep_direction(0)
        elif task == 0:
            adapted.keep()
    change = sum(
        B.double()[0] @ A.double()[0] for A, B in (adapted.factors(), adapted.old_factors())
    )
    expected = kernel.double() + 2 * change.view_as(kernel)
    merged = adapted.merged_state()
    torch.testing.assert_close(merged["weight"].double(), expected, rtol=1e-5, atol=1e-5)
    y = layer._conv_forward(x, merged["weight"], layer.bias)
    torch.testing.assert_close(adapted(x), y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [HeldFactors, HeldBlock])
def test_a_decomposed_convolution_does_the_same_and_holds_its_directions(kind: Any) -> None:
    torch.manual_seed(0)
    base = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    x, before = torch.randn(2, 3, 9, 7), base.weight.detach().clone()
    expected = base(x).detach()
    layer = SubspaceLayer(base, 1, kind)
    layer.decompose([3])
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    optimiser = torch.optim.AdamW(layer.parts.parameters(), lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        layer(x).square().mean().backward()
        optimiser.step()
        layer.matrices[0].project()
    held = layer.matrices[0]
    left, right = held.left.clone(), held.right.clone()
    layer.merge()
    change = (base.weight.detach() - before).flatten(1)
    assert change.abs().max() > 1e-3
    assert (left.mT @ change @ right).abs().max() < 1e-5


def test_names_are_found_at_their_end_and_grouped_convolutions_are_no_matrix() -> None:
    resnet = timm.create_model("resnet18", num_classes=0)
    assert len(find_targets(resnet, ["conv2"])) == 8
    assert list(find_targets(resnet, ["layer2.0.downsample.0"])) == ["layer2.0.downsample.0"]
    with pytest.raises(ConfigurationError, match="conv1, conv2"):
        inject_lora(resnet, ["attn.qkv:q,v"], rank=2, alpha=2)
    convnext = timm.create_model("convnext_atto", num_classes=0)
    assert len(find_targets(convnext, ["mlp.fc1"])) == 12
    with pytest.raises(ConfigurationError, match=r"mlp\.fc1"):
        find_targets(convnext, ["conv_dw"])


TARGETS = "strategy.targets=[layer1.0.conv2,layer2.0.downsample.0]"


@pytest.mark.parametrize("strategy", ["olora", "codyra", "sd_lora", "inflora", "osft"])
def test_low_rank_strategies_on_a_convolutional_network(
    compose: Compose, tmp_path: Path, strategy: str
) -> None:
    """They learn and predict, the exported network is a plain one, and a frozen batch norm stays as it is."""
    stream = toy_stream()
    overrides = (f"strategy={strategy}", "backbone=resnet18", "backbone.pretrained=false", TARGETS)
    learner = Learner(compose(*overrides, "backbone.image_size=32"), stream.info)
    before = {name: value.clone() for name, value in learner.model.backbone.state_dict().items()}
    for index in range(2):
        learner.learn(stream.experience(index))
    after = learner.model.backbone.state_dict()
    if strategy != "osft":  # which trains the others too
        assert all(torch.equal(after[n], before[n]) for n in before if "bn" in n)
    learner.export(tmp_path / "plain.safetensors")
    plain = timm.create_model("resnet18", num_classes=4).eval()
    plain.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    with torch.inference_mode():
        for batch, logits in learner.answers(stream.test[0]):
            torch.testing.assert_close(logits, plain(batch.images), rtol=1e-4, atol=1e-5)
