"""What each layer and each parameter of a network does, and how deep it lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn
from torch.nn.modules.conv import _ConvNd

from cl.errors import PalimpsestError
from cl.models.anatomy.families import (
    CATEGORIES,
    EVERYWHERE,
    FAMILIES,
    FUSED,
    OUTSIDE,
    Family,
)
from cl.models.matrices import as_matrix, is_matrix

UNKNOWN = ""


@dataclass(frozen=True)
class Place:
    """Where a layer or a parameter stands.

    role: one of `ROLES`, or `UNKNOWN`. block: the block it is in, counted from 0, or None. depth: 0 before
    the blocks, (block + 1) / (blocks + 1) in one and up to the next, 1 after the last.
    """

    role: str
    block: int | None
    depth: float


class Anatomy:
    """What is known of a network as it is now; it must be read again when layers were replaced.

    Everything goes by its present name. What lies inside an adapter has the place that it would have
    without it.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.modules = dict(network.named_modules())
        self.plain: dict[str, str | None] = {"": ""}
        for name in self.modules:
            if name:
                self.plain[name] = self._plain(name)
        names = [plain for plain in self.plain.values() if plain]
        self.family: Family | None = next((f for f in FAMILIES if f.is_that_of(names)), None)

    def _plain(self, name: str) -> str | None:
        """The name without what adapters add to it, or None for a part of an adapter."""
        parent, _, leaf = name.rpartition(".")
        before = self.plain[parent]
        if before is None or not is_adapter(self.modules[parent]):
            return None if before is None else f"{before}.{leaf}".lstrip(".")
        return before if leaf == "base" else None

    @cached_property
    def blocks(self) -> dict[str, int]:
        """The number of each block, by its name without adapters."""
        if self.family is None:
            return {}
        pattern = re.compile(rf"{OUTSIDE}{self.family.block}(?=\.|$)")
        found = (pattern.match(plain) for plain in self.plain.values() if plain)
        names = dict.fromkeys(match[0] for match in found if match)
        return {name: number for number, name in enumerate(names)}

    @cached_property
    def layers(self) -> dict[str, Place]:
        """The place of every module."""
        numbers: dict[str, int | None] = {}
        for name, plain in self.plain.items():
            around = numbers.get(name.rpartition(".")[0])
            numbers[name] = around if plain is None else self.blocks.get(self._block(plain))
        left = sum(number is not None for number in numbers.values())
        places, begun = {}, 0
        for name, number in numbers.items():
            if number is not None:
                begun, left = number + 1, left - 1
            behind = self.blocks and number is None and not left
            depth = 1.0 if behind else begun / (len(self.blocks) + 1)
            places[name] = Place(self._role(name), number, depth)
        return places

    @cached_property
    def parameters(self) -> dict[str, Place]:
        """The place of every parameter; one that is used twice counts where it is met first."""
        places = {}
        for name, parameter in self.network.named_parameters():
            owner, _, leaf = name.rpartition(".")
            plain, role = self.plain[owner], self.layers[owner].role
            if plain is None or is_adapter(self.modules[owner]):
                role = "adapter"
            elif leaf not in ("weight", "bias"):
                role = self._named(f"{plain}.{leaf}".lstrip("."))
                role = role or ("other" if parameter.dim() < 2 else UNKNOWN)
            places[name] = replace(self.layers[owner], role=role)
        return places

    def role(self, name: str) -> str:
        """What the layer or parameter of that name does; PalimpsestError if no table knows."""
        role = (self.layers.get(name) or self.parameters[name]).role
        if role != UNKNOWN:
            return role
        known = ", ".join(family.name for family in FAMILIES)
        raise PalimpsestError(
            f"backbone: no table says what {name} does in a {type(self.network).__name__}. "
            f"Use a backbone of one of these families: {known}; or add a table to "
            "cl/models/anatomy/families.py."
        )

    def category(self, name: str) -> str:
        """attention, mlp, or the role itself; PalimpsestError if no table knows."""
        role = self.role(name)
        return next((c for c, roles in CATEGORIES.items() if role in roles), role)

    def parts(self, name: str) -> dict[str, slice]:
        """The rows of q, k and v in a fused layer; none if it is not known to be one."""
        layer, parts = self.modules[name], FUSED.get(self.layers[name].role, ())
        if not parts or self.family is None or self.family.interleaved or not is_matrix(layer):
            return {}
        height, rest = divmod(len(as_matrix(layer)), len(parts))
        return {} if rest else {p: slice(i * height, (i + 1) * height) for i, p in enumerate(parts)}

    def _block(self, plain: str) -> str:
        """The name of the block around a layer; empty if there is none."""
        path = plain.split(".")
        prefixes = (".".join(path[:end]) for end in range(1, len(path) + 1))
        return next((prefix for prefix in prefixes if prefix in self.blocks), "")

    def _role(self, name: str) -> str:
        plain, module = self.plain[name], self.modules[name]
        if plain is None:
            return "adapter"
        weight = module._parameters.get("weight")
        if weight is not None and weight.dim() == 1 and "norm" in type(module).__name__.lower():
            return "norm"
        convolutional = self.family is not None and self.family.convolutional
        if named := self._named(plain):
            return named
        if isinstance(module, nn.Embedding):
            return "embedding"
        if isinstance(module, _ConvNd) and convolutional:
            return "conv"
        return "other" if weight is None or weight.dim() < 2 else UNKNOWN

    def _named(self, plain: str) -> str:
        """The role that the tables give to a name, or `UNKNOWN`."""
        if self.family is not None and (block := self._block(plain)):
            return match(self.family.inside, plain[len(block) + 1 :])
        outside = {} if self.family is None else self.family.outside
        return match(outside, plain, OUTSIDE) or match(EVERYWHERE, plain, OUTSIDE)


def match(table: Mapping[str, str], name: str, before: str = "") -> str:
    """The first role whose pattern fits the name, or `UNKNOWN`."""
    found = (role for role, names in table.items() if re.fullmatch(f"{before}(?:{names})", name))
    return next(found, UNKNOWN)


def is_adapter(module: nn.Module) -> bool:
    """Whether a method put it in: it can say which plain layers do the same."""
    return hasattr(module, "merged_state")
