"""What a stored configuration may name: decided before anything is built, by what the named object is."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cl.errors import ConfigurationError, require
from cl.instantiate import locate

OURS = ("cl", "strategies", "streams")
SPECIAL = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
"""Keys that ask for something to be built or called, here or in Hydra."""


@dataclass(frozen=True)
class Kind:
    """What a section of a configuration is made of.

    base: the class whose subclasses it may name. package: that of ours which holds them. several: the
    section gives each node a name. functions: one that is annotated to return `base` will do as well.
    """

    base: type
    package: str
    several: bool = False
    functions: bool = False

    def fits(self, found: Any) -> bool:
        """Whether `found` makes objects of this kind; the base alone is no object of use."""
        if inspect.isfunction(found):
            returned = _returned(found)
            return self.functions and (returned is self.base or self._derived(returned))
        return self._derived(found)

    def _derived(self, found: Any) -> bool:
        if not issubclass(type(found), type) or inspect.isabstract(found):  # list[int] is no class
            return False
        return issubclass(found, self.base) and found is not self.base

    def __str__(self) -> str:
        name = self.base.__name__
        return f"a subclass of {name}" + (
            f" or a function that is annotated to return it (-> {name})" if self.functions else ""
        )


def check_trust(cfg: DictConfig, kinds: Mapping[str, Kind], trust: Sequence[str]) -> None:
    """Raise ConfigurationError unless a stored configuration names only what its sections are for.

    kinds: by section. trust: the user's packages whose code may run. Every `_target_` must be of its
    section's kind and come from, and be defined in, our package for it or one of the user's; a module is
    imported only after its package was found there. Below and beside these nodes there may be no others.
    """
    rest: Any = OmegaConf.to_container(cfg, resolve=False)
    for section, kind in kinds.items():
        for where, node in _nodes(rest.pop(section, None), section, kind):
            _check_node(node, where, kind, trust)
    _refuse_nodes(rest, "")


def _nodes(content: Any, section: str, kind: Kind) -> Iterable[tuple[str, Any]]:
    if not kind.several:
        return [(section, content)]
    require(
        isinstance(content, dict | None),
        f"{section}: it must be a mapping of names, not {type(content).__name__}.",
    )
    return [(f"{section}.{name}", node) for name, node in (content or {}).items()]


def _check_node(node: Any, where: str, kind: Kind, trust: Sequence[str]) -> None:
    path = node.get("_target_") if isinstance(node, dict) else None
    if not isinstance(path, str):
        raise ConfigurationError(f"{where}: the stored configuration gives no {where}._target_.")
    _refuse_nodes({key: value for key, value in node.items() if key != "_target_"}, f"{where}.")
    packages = (kind.package, *(package for package in trust if package not in OURS))
    _check_package(path, path, where, kind, packages)
    found = locate(path, where)
    require(kind.fits(found), f"{where}._target_={path}: a stored {where} must be {kind}.")
    _check_package(str(found.__module__), path, where, kind, packages)


def _check_package(module: str, path: str, where: str, kind: Kind, packages: Sequence[str]) -> None:
    """module: where the object is looked for, or where it turns out to be defined."""
    package = module.partition(".")[0]
    require(
        package not in OURS or package == kind.package,
        f"{where}._target_={path}: of our own packages only {kind.package} may be named here.",
    )
    require(
        package in packages,
        f"A stored configuration names {path}. Its code is not run unless you trust it: "
        f"trust=[{package}].",
    )


def _refuse_nodes(content: Any, where: str) -> None:
    """Nothing builds a node inside another's arguments, so whoever wrote one meant no good."""
    if isinstance(content, dict):
        for key, value in content.items():
            require(
                key not in SPECIAL,
                f"{where}{key}: a stored configuration may not have it at this place.",
            )
            _refuse_nodes(value, f"{where}{key}.")
    elif isinstance(content, list):
        for index, value in enumerate(content):
            _refuse_nodes(value, f"{where}{index}.")


def _returned(function: Any) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError):  # names that only a type checker sees
        return None
