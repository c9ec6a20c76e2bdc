"""The parts that a backbone's blocks are made of: the unit in which weights are frozen or chosen."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cl.models.anatomy import Anatomy
from cl.models.matrices import is_transposed


@dataclass(frozen=True)
class Unit:
    """One matrix with its bias, one normalisation layer, or one part of a fused qkv layer.

    block: the name of the block it is in. kind: "attention", "mlp" or another of the anatomy's roles.
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
    and of a fused qkv layer q, k and v are a unit each. PalimpsestError if no table says what a matrix does.
    """
    anatomy = Anatomy(module)
    units: list[Unit] = []
    for name, layer in module.named_modules():
        block = _block_of(module, name)
        parameters = tuple(f"{name}.{p}" for p, _ in layer.named_parameters(recurse=False))
        if block is None or not parameters:
            continue
        if isinstance(layer, _BatchNorm) and units and units[-1].block == block:
            last = units.pop()
            units.append(Unit(block, last.kind, (*last.parameters, *parameters)))
        elif rows := [] if is_transposed(layer) else list(anatomy.parts(name).values()):
            units += [Unit(block, anatomy.category(name), parameters, part) for part in rows]
        else:
            units.append(Unit(block, anatomy.category(name), parameters))
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
