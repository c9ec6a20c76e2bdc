"""Where no rule gives each image's own gradient: it is noticed, and the gradient is right or an error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cl.ops.fisher import diagonal_fisher, mean_over_images
from tests.cl.ops.per_sample_reference import Net, assert_exact, found, loop, objective


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
