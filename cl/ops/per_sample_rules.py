"""From the gradient of an operation's output to each image's own gradient of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Use(NamedTuple):
    """How one parameter enters an operation.

    gradients: from the gradient of the output and `saved`, all of them B × …, to each image's gradient,
    B × the parameter's numbers. work: how many numbers that takes for one image.
    """

    parameter: Tensor
    gradients: Callable[..., Tensor]
    saved: tuple[Tensor, ...]
    work: int


def _rows(x: Tensor) -> Tensor:
    """B × … × n to B × T × n."""
    return x.reshape(len(x), -1, x.shape[-1])


def _summed_to(shape: torch.Size, g: Tensor) -> Tensor:
    """B × … summed, per image, over the dimensions along which a tensor of `shape` was repeated."""
    padded = (1,) * (g.ndim - len(shape)) + tuple(shape)
    repeated = [d for d in range(1, g.ndim) if padded[d] == 1 and g.shape[d] > 1]
    return g.sum(repeated) if repeated else g


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> list[Use]:
    uses = [Use(weight, lambda g, a: _rows(g).mT @ _rows(a), (x,), weight.numel())]
    if bias is not None:
        uses.append(Use(bias, lambda g: _rows(g).sum(1), (), bias.numel()))
    return uses


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> list[Use]:
    if isinstance(padding, str):
        return []

    def kernels(g: Tensor, a: Tensor) -> Tensor:
        patches = F.unfold(a, weight.shape[2:], dilation, padding, stride)  # B × (in · k) × L
        patches = patches.reshape(len(a), groups, -1, patches.shape[2])
        return g.reshape(len(g), groups, -1, patches.shape[3]) @ patches.mT

    work = max(weight.numel(), x[0].numel() * weight[0, 0].numel())
    uses = [Use(weight, kernels, (x,), work)]
    if bias is not None:
        uses.append(Use(bias, lambda g: g.flatten(2).sum(2), (), bias.numel()))
    return uses


def _layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> list[Use]:
    def normalise(a: Tensor) -> Tensor:
        return F.layer_norm(a, shape, None, None, eps)

    def total(g: Tensor) -> Tensor:
        return g.reshape(len(g), -1, *shape).sum(1)

    return _affine(x, weight, bias, normalise, total)


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[Use]:
    def normalise(a: Tensor) -> Tensor:
        return F.batch_norm(a, mean, variance, None, None, False, 0.0, eps)

    return [] if training else _affine(x, weight, bias, normalise, _per_channel)


def _group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> list[Use]:
    def normalise(a: Tensor) -> Tensor:
        return F.group_norm(a, groups, None, None, eps)

    return _affine(x, weight, bias, normalise, _per_channel)


def _per_channel(g: Tensor) -> Tensor:
    return g.reshape(len(g), g.shape[1], -1).sum(2)


def _affine(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    normalise: Callable[[Tensor], Tensor],
    total: Callable[[Tensor], Tensor],
) -> list[Use]:
    """Of weight · normalise(x) + bias; total: the sum over an image's places."""
    uses = []
    if weight is not None:
        uses.append(Use(weight, lambda g, a: total(g * normalise(a)), (x,), x[0].numel()))
    if bias is not None:
        uses.append(Use(bias, total, (), bias.numel()))
    return uses


def _embedding(
    ids: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> list[Use]:
    """ids: B × …; the row of `padding_idx` gets no gradient."""
    if max_norm is not None or scale_grad_by_freq or sparse:
        return []  # rows that change in the forward pass, or that depend on the whole batch

    def gradients(g: Tensor, i: Tensor) -> Tensor:
        flat = i.reshape(len(i), -1, 1).expand(-1, -1, weight.shape[1])
        rows = g.new_zeros(len(i), *weight.shape).scatter_add_(1, flat, _rows(g))
        if padding_idx is not None:
            rows[:, padding_idx] = 0
        return rows

    return [Use(weight, gradients, (ids.long(),), weight.numel())]


def _add(left: Any, right: Any, **other: Any) -> list[Use]:
    return [] if other else [*_added(left, right), *_added(right, left)]


def _added(parameter: Any, x: Any) -> list[Use]:
    def gradients(g: Tensor, a: Tensor) -> Tensor:
        return _summed_to(parameter.shape, g)

    return [Use(parameter, gradients, (x,), x[0].numel())] if _repeats(parameter, x) else []


def _multiply(left: Any, right: Any, **other: Any) -> list[Use]:
    return [] if other else [*_multiplied(left, right), *_multiplied(right, left)]


def _multiplied(parameter: Any, x: Any) -> list[Use]:
    def gradients(g: Tensor, a: Tensor) -> Tensor:
        return _summed_to(parameter.shape, g * a)

    return [Use(parameter, gradients, (x,), x[0].numel())] if _repeats(parameter, x) else []


def _repeats(parameter: Any, x: Any) -> bool:
    """Whether an operation on both repeats the parameter for every image of x, and x for nothing."""
    if not (isinstance(parameter, Tensor) and isinstance(x, Tensor)) or not x.ndim:
        return False
    if parameter.ndim > x.ndim or (parameter.ndim == x.ndim and len(parameter) != 1):
        return False
    return all(n in (1, m) for n, m in zip(parameter.shape[::-1], x.shape[::-1], strict=False))


def _expand(parameter: Tensor, *sizes: Any, **other: Any) -> list[Use]:
    """One row that is repeated for every image, such as a class token."""
    sizes = tuple(sizes[0]) if sizes and isinstance(sizes[0], (tuple, list)) else sizes
    fits = not other and len(sizes) == parameter.ndim and len(parameter) == 1
    if not fits or any(
        s not in (-1, n) for s, n in zip(sizes[1:], parameter.shape[1:], strict=True)
    ):
        return []
    return [Use(parameter, lambda g: g, (), parameter.numel())]


RULES: dict[Callable[..., Any], Callable[..., list[Use]]] = {
    F.linear: _linear,
    F.conv2d: _conv2d,
    F.layer_norm: _layer_norm,
    F.batch_norm: _batch_norm,
    F.group_norm: _group_norm,
    F.embedding: _embedding,
    torch.add: _add,
    torch.mul: _multiply,
    Tensor.add: _add,
    Tensor.mul: _multiply,
    Tensor.expand: _expand,
}
"""By operation: how the parameters among its arguments enter it. It is called with these arguments."""

RESHAPES: tuple[Any, ...] = (Tensor.reshape, Tensor.view, Tensor.flatten, Tensor.unsqueeze)
"""What leaves the numbers of a tensor as they are, in their order."""
