"""The parts that a backbone's blocks are made of: the unit in which weights are frozen or chosen."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class Unit:
    """One matrix with its bias, one normalisation layer, or one part of a fused qkv layer.

    block: the name of the block it is in. kind: "attention", "mlp", "conv", "norm" or "other".
    parameters: the names of its tensors. rows: its rows of these; None is all.
    """

    block: str
    kind: str
    parameters: tuple[str, ...]
    rows: slice | None = None


def find_units(module: nn.Module) -> list[Unit]:
    """The units of all blocks, in the module's order; what lies outside the blocks is left out.

    A block is an element of a list or sequence of modules that has parts of its own: a transformer's or
    a residual block. A bias goes with its matrix, a batch normalisation with the convolution before it,
    and of a fused qkv layer q, k and v are a unit each.
    """
    units: list[Unit] = []
    for name, layer in module.named_modules():
        block = _block_of(module, name)
        parameters = tuple(f"{name}.{p}" for p, _ in layer.named_parameters(recurse=False))
        if block is None or not parameters:
            continue
        if isinstance(layer, _BatchNorm) and units and units[-1].block == block:
            last = units.pop()
            units.append(Unit(block, last.kind, (*last.parameters, *parameters)))
        elif name.endswith(".qkv") and isinstance(layer, nn.Linear) and not layer.out_features % 3:
            height = layer.out_features // 3
            for start in range(0, layer.out_features, height):
                rows = slice(start, start + height)
                units.append(Unit(block, "attention", parameters, rows))
        else:
            units.append(Unit(block, _kind(name, layer), parameters))
    return units


def _block_of(module: nn.Module, name: str) -> str | None:
    """The innermost block around a layer, or None."""
    path = name.split(".")
    for end in range(len(path), 0, -1):
        prefix = ".".join(path[:end])
        parent, inner = (
            module.get_submodule(".".join(path[: end - 1])),
            module.get_submodule(prefix),
        )
        listed = isinstance(parent, (nn.Sequential, nn.ModuleList))
        composed = (
            not isinstance(inner, (nn.Sequential, nn.ModuleList))
            and "weight" not in inner._parameters
        )
        if listed and composed and any(True for _ in inner.children()):
            return prefix
    return None


def _kind(name: str, layer: nn.Module) -> str:
    weight = layer._parameters.get("weight")
    if weight is None:
        return "other"
    if weight.dim() == 1:
        return "norm"
    path = name.split(".")
    return "attention" if "attn" in path else "mlp" if "mlp" in path else "conv"
