"""Linear layers and convolutions as matrices, out × in: a convolution multiplies each patch of its input."""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional as F

MatrixLayer = nn.Linear | nn.Conv2d
"""Transformers' Conv1D, a linear layer whose weight is transposed, counts as nn.Linear."""


def is_matrix(layer: nn.Module) -> TypeGuard[MatrixLayer]:
    """Whether the layer multiplies its input, or each patch of it, by one matrix."""
    if isinstance(layer, nn.Linear) or is_transposed(layer):
        return True
    return (
        type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def is_transposed(layer: nn.Module) -> bool:
    """Whether it is a Conv1D of Transformers' GPT-2: linear, with a weight of in × out."""
    return type(layer).__name__ == "Conv1D" and not isinstance(layer, nn.Conv1d)


def as_matrix(layer: MatrixLayer) -> Tensor:
    """The weight as out × in."""
    return layer.weight.mT if is_transposed(layer) else layer.weight.flatten(1)


def as_weight(layer: MatrixLayer, matrix: Tensor) -> Tensor:
    """A matrix, out × in, in the shape of the layer's weight."""
    return matrix.mT.contiguous() if is_transposed(layer) else matrix.view_as(layer.weight)


def multiply(layer: MatrixLayer, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `layer` would give for x with another matrix, rows × in, in the place of its weight.

    The `in` of a convolution is channels · height · width of its kernel.
    """
    if not isinstance(layer, nn.Conv2d):
        return F.linear(x, matrix, bias)
    kernel = matrix.view(-1, *layer.weight.shape[1:])
    return F.conv2d(x, kernel, bias, layer.stride, layer.padding, layer.dilation)


def mix(layer: MatrixLayer, y: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each output vector y of `layer` by a matrix, out × rows: … × rows to … × out, or channels."""
    if not isinstance(layer, nn.Conv2d):
        return F.linear(y, matrix)
    return F.conv2d(y, matrix[:, :, None, None])


def vectors(layer: MatrixLayer, x: Tensor) -> Tensor:
    """What the matrix of `layer` multiplies for its input x: N × in, a row for each token or patch."""
    if not isinstance(layer, nn.Conv2d):
        return x.flatten(0, -2)
    assert not isinstance(layer.padding, str)
    patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return patches.mT.flatten(0, 1)
