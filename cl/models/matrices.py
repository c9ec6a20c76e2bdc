"""Linear layers and convolutions as matrices: a convolution multiplies each patch of its input."""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional as F

from cl.errors import require, suggest

MatrixLayer = nn.Linear | nn.Conv2d


def matrix_layers(module: nn.Module, suffix: str) -> dict[str, MatrixLayer]:
    """The layers that are one matrix and whose name ends in `suffix`; ConfigurationError if there is none.

    Grouped convolutions are not one matrix.
    """
    layers = {n: layer for n, layer in module.named_modules() if is_matrix(layer)}
    chosen = {n: layer for n, layer in layers.items() if f".{n}".endswith(f".{suffix}")}
    hint = suggest(suffix, {_end(name) for name in layers})
    require(
        bool(chosen),
        f"strategy.targets: no linear layer or plain convolution ends in {suffix}. {hint}",
    )
    return chosen


def is_matrix(layer: nn.Module) -> TypeGuard[MatrixLayer]:
    """Whether the layer multiplies its input, or each patch of it, by one matrix."""
    if isinstance(layer, nn.Linear):
        return True
    return (
        type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _end(name: str) -> str:
    """The last two parts of a name, or the last if the one before it is a mere number."""
    *_, before, last = ["", *name.split(".")]
    return f"{before}.{last}" if before and not before.isdigit() else last


def multiply(layer: MatrixLayer, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `layer` would give for x with another matrix, rows × in, in the place of its weight.

    The `in` of a convolution is channels · height · width of its kernel.
    """
    if isinstance(layer, nn.Linear):
        return F.linear(x, matrix, bias)
    kernel = matrix.view(-1, *layer.weight.shape[1:])
    return F.conv2d(x, kernel, bias, layer.stride, layer.padding, layer.dilation)


def mix(layer: MatrixLayer, y: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each output vector y of `layer` by a matrix, out × rows: … × rows to … × out, or channels."""
    if isinstance(layer, nn.Linear):
        return F.linear(y, matrix)
    return F.conv2d(y, matrix[:, :, None, None])


def vectors(layer: MatrixLayer, x: Tensor) -> Tensor:
    """What the matrix of `layer` multiplies for its input x: N × in, a row for each token or patch."""
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2)
    assert not isinstance(layer.padding, str)
    patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return patches.mT.flatten(0, 1)
