"""Each image's own gradient, against one backward pass per image in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cl.models import nano
from cl.models.heads import CosineHead, LinearHead
from cl.models.lora import GatedLoRALinear, LoRALinear, inject_lora, lora_layers
from cl.ops.fisher import diagonal_fisher, mean_over_images
from cl.ops.per_sample import PerSampleGradients

Gradients = dict[str, Tensor]


def objective(logits: Tensor, labels: Tensor) -> Tensor:
    return -F.cross_entropy(logits, labels)


def loop(model: nn.Module, images: Tensor, labels: Tensor) -> Gradients:
    """One backward pass per image: N × the parameter's shape."""
    each: dict[str, list[Tensor]] = {}
    for image, label in zip(images, labels, strict=True):
        model.zero_grad()
        objective(model(image[None]), label[None]).backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                each.setdefault(name, []).append(gradient.clone())
    model.zero_grad()
    return {name: torch.stack(parts) for name, parts in each.items()}


def found(
    model: nn.Module, images: Tensor, labels: Tensor, numbers: int = 2**26
) -> tuple[Gradients, set[str]]:
    """What `PerSampleGradients` passes on, and the names that no rule covers."""
    each: dict[str, list[Tensor]] = {}

    def receive(name: str, gradients: Tensor) -> None:
        each.setdefault(name, []).append(gradients.clone())

    pass_on, slow = PerSampleGradients(model, objective, receive, numbers), set()
    vectorised = pass_on._vectorised

    def watched(names: list[str], *rest: Tensor) -> None:
        slow.update(names)
        vectorised(names, *rest)

    pass_on._vectorised = watched  # type: ignore[method-assign]
    pass_on(images, labels)
    return {name: torch.cat(parts) for name, parts in each.items()}, slow


def assert_exact(
    model: nn.Module, shape: tuple[int, ...], slow: set[str] = frozenset(), count: int = 5
) -> None:
    """The gradients are the loop's, image by image; only the parameters `slow` needed torch.func."""
    model = model.double().eval()
    generator = Generator().manual_seed(1)
    images = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(count) % 3
    expected = loop(model, images, labels)
    gradients, fell_back = found(model, images, labels)
    assert fell_back == slow
    for name, value in expected.items():
        if name in gradients or value.any():
            torch.testing.assert_close(gradients[name], value, rtol=1e-9, atol=1e-13, msg=name)
    assert all(parameter.grad is None for parameter in model.parameters())


class Net(nn.Module):
    """Something in between, then the mean over all places, and a linear layer to three classes."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y = y.flatten(2).mean(2) if y.ndim == 4 else y.mean(1) if y.ndim == 3 else y
        logits: Tensor = self.head(torch.tanh(y))
        return logits


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


def with_lora(kind: type[LoRALinear]) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    inject_lora(model, ["0"], rank=2, alpha=4.0, kind=kind)
    for layer in lora_layers(model):
        layer.reset(Generator().manual_seed(1))
        layer.B.data.normal_(generator=Generator().manual_seed(2))
    return model


@pytest.mark.parametrize("kind", [LoRALinear, GatedLoRALinear])
def test_low_rank_factors(kind: type[LoRALinear]) -> None:
    torch.manual_seed(0)
    slow = {"0.B"} if kind is LoRALinear else {"0.A", "0.B", "0.gate"}
    assert_exact(with_lora(kind), (4,), slow)


@pytest.mark.parametrize(("head", "slow"), [(LinearHead, set()), (CosineHead, {"2.weight"})])
def test_growing_heads(head: type[LinearHead] | type[CosineHead], slow: set[str]) -> None:
    torch.manual_seed(0)
    grown = head(6)
    for classes in (2, 3):
        grown.grow(classes, Generator().manual_seed(classes))
    nn.init.normal_(grown.weight)
    assert_exact(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), grown), (4,), slow)


class Twice(nn.Module):
    """One linear layer used twice, another whose weight is also used otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.tied = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.shared(torch.tanh(self.shared(x))))
        return torch.tanh(self.tied(x)) @ self.tied.weight


def test_a_layer_used_twice() -> None:
    torch.manual_seed(0)
    slow = {"inner.shared.weight", "inner.shared.bias", "inner.tied.weight"}
    assert_exact(Net(Twice(), 4), (7, 4), slow)


def test_one_parameter_in_two_layers() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert_exact(nn.Sequential(first, nn.Tanh(), second, nn.Linear(4, 3)), (4,), {"0.weight"})


def test_frozen_parameters_are_left_out() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 5), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    model[2].weight.requires_grad_(False)
    images, labels = torch.randn(4, 4), torch.arange(4) % 3
    assert found(model, images, labels)[0].keys() == {"2.bias", "3.weight", "3.bias"}
    assert_exact(model, (4,))


def test_nothing_to_train() -> None:
    model = nn.Linear(4, 3).requires_grad_(False)
    assert (
        mean_over_images(model, [(torch.randn(2, 4), torch.arange(2))], objective, torch.abs) == {}
    )


def test_an_unused_parameter_has_no_information() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    fisher = diagonal_fisher(model, [(torch.randn(2, 4), torch.arange(2))], objective)
    assert fisher["unused"].tolist() == [0.0, 0.0]
    assert fisher["0.weight"].any()


class TokensFirst(nn.Module):
    """T × B × n inside, with as many tokens as images: the first dimension looks like the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(x.transpose(0, 1))).transpose(0, 1)


def test_images_in_another_dimension_are_noticed() -> None:
    torch.manual_seed(0)
    slow = {"inner.inner.weight", "inner.inner.bias"}
    assert_exact(Net(TokensFirst(), 4), (5, 4), slow, count=5)


class Windows(nn.Module):
    """Several windows of an image, each as if it were an image of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(x.reshape(-1, 2, 4))).reshape(len(x), -1, 4)


def test_windows_as_batch() -> None:
    torch.manual_seed(0)
    assert_exact(Net(Windows(), 4), (6, 4), {"inner.inner.weight", "inner.inner.bias"})


class Hidden(torch.autograd.Function):
    """x · w, in an operation that nobody can look into."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return x * weight

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor
    ) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return g * weight, (g * x).reshape(-1, len(weight)).sum(0)

    @staticmethod
    def vmap(info: object, dims: tuple, x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        assert dims == (0, None)
        return x * weight, 0


class Custom(nn.Module):
    """A norm whose weight is also used in an operation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return Hidden.apply(self.norm(x), self.norm.weight)  # type: ignore[no-any-return]


def test_a_second_use_in_an_unknown_operation_is_noticed() -> None:
    torch.manual_seed(0)
    model = Net(Custom(), 4).eval()
    _, slow = found(model, torch.randn(3, 7, 4), torch.arange(3))
    assert slow == {"inner.norm.weight"}


def test_statistics_of_the_batch_are_noticed() -> None:
    """Without running statistics a batch norm looks at all images: each must be taken alone."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    model = Net(norm, 3)
    assert_exact(model, (3, 4, 4), {name for name, _ in model.named_parameters()})


class InPlace(nn.Module):
    """The input of a linear layer is changed afterwards, which makes its gradient unknowable."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2
        y: Tensor = self.inner(x)
        x.zero_()
        return y


def test_an_input_changed_in_place_is_an_error_as_in_pytorch() -> None:
    model, images, labels = Net(InPlace(), 4), torch.randn(2, 7, 4), torch.arange(2)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        loop(model, images, labels)
    with pytest.raises(RuntimeError, match=r"inner\.weight was changed in place"):
        found(model, images, labels)


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
