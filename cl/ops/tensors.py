"""Named tensors that are part of a method's state, and tensors that have grown."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TensorDict(nn.Module):
    """A `dict[str, Tensor]` whose tensors are buffers, so that they are saved and moved."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.register_buffer(_escape(name), value)

    def __getitem__(self, name: str) -> Tensor:
        value = self._buffers[_escape(name)]
        assert value is not None
        return value

    def __len__(self) -> int:
        return len(self._buffers)

    def get(self, name: str, default: Tensor) -> Tensor:
        """The tensor of that name, or `default`."""
        return self[name] if _escape(name) in self._buffers else default

    def items(self) -> list[tuple[str, Tensor]]:
        """Names and tensors."""
        return [
            (key.replace("/", "."), value)
            for key, value in self._buffers.items()
            if value is not None
        ]


def _escape(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name may hold no dot


def leading(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The part of `tensor` that has the given, smaller shape: the first rows, columns …"""
    return tensor if tensor.shape == shape else tensor[tuple(slice(size) for size in shape)]


def pad_to(tensor: Tensor, shape: torch.Size) -> Tensor:
    """`tensor` followed by zeros up to the given, larger shape."""
    if tensor.shape == shape:
        return tensor
    padded = tensor.new_zeros(shape)
    if tensor.numel():
        leading(padded, tensor.shape).copy_(tensor)
    return padded
