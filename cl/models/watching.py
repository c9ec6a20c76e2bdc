"""Seeing what goes into the layers of a model during a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def watch_inputs(layers: Sequence[nn.Module], see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """While it lasts, `see(index, inputs)` is called whenever `layers[index]` runs."""

    def hook(index: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: see(index, inputs[0])

    handles = [layer.register_forward_pre_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
