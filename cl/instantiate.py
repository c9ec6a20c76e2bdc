"""Build the object that a configuration node names, and say what is wrong with the node if it fails."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cl.errors import ConfigurationError, require, suggest

PLAIN = (int, float, bool, str, types.NoneType)
LISTS, MAPPINGS = (list, tuple, Sequence), (dict, Mapping)
"""What arguments in a configuration can be."""


def build(node: DictConfig | Mapping[str, Any], where: str, **given: Any) -> Any:
    """Call `node._target_` with the node's other keys and with those of `given` that it accepts.

    `where` names the node in error messages ("strategy"). Raises ConfigurationError when the target
    cannot be imported, a key is not one of its arguments, or a value is of the wrong type.
    """
    arguments = _plain(node)
    target = locate(str(arguments.pop("_target_", "")), where)
    parameters = inspect.signature(target).parameters
    for key in arguments:
        require(
            key in parameters,
            f"{where}.{key}: {target.__name__} has no such argument. {suggest(key, parameters)}",
        )
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for key, value in arguments.items():
        arguments[key] = _checked(value, hints.get(key, Any), f"{where}.{key}")
    arguments.update({key: value for key, value in given.items() if key in parameters})
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in arguments
    ]
    require(not missing, f"{where}: give {' and '.join(f'{where}.{m}=…' for m in missing)}.")
    return target(**arguments)


def locate(path: str, where: str) -> Callable[..., Any]:
    """The class or function at a dotted path such as "my_package.MyStrategy"."""
    module_name, _, attribute = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise ConfigurationError(
            f"{where}._target_={path}: give package.module.Name, for example my_package.MyMethod."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise  # the module exists, and something that it needs does not
        raise ConfigurationError(
            f"{where}._target_={path}: there is no module {error.name}. "
            "It must be installed or lie in the current folder."
        ) from None
    if not hasattr(module, attribute):
        names = [name for name, value in vars(module).items() if callable(value)]
        raise ConfigurationError(
            f"{where}._target_={path}: {module_name} has no {attribute}. {suggest(attribute, names)}"
        )
    found: Callable[..., Any] = getattr(module, attribute)
    return found


def _plain(node: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    given = {str(key): value for key, value in dict(plain).items()}  # type: ignore[arg-type]
    return {key: value for key, value in given.items() if value != "???"}  # not given yet


def _checked(value: Any, hint: Any, where: str) -> Any:
    """`value` if it fits `hint`, of which plain values, and lists and dictionaries of such, are understood.

    An int where a float is wanted is converted.
    """
    options = _options(hint)
    if not all(map(_is_understood, options)):
        return value  # classes are checked by whoever takes them
    if not _fits(value, hint):
        wanted = " or ".join(map(_named, options))
        raise ConfigurationError(
            f"{where}={value}: it must be {wanted}, not {type(value).__name__}."
        )
    return float(value) if type(value) is int and int not in options and float in options else value


def _fits(value: Any, hint: Any) -> bool:
    for option in _options(hint):
        kind, inner = typing.get_origin(option) or option, typing.get_args(option)
        if kind is typing.Literal:
            right = any(type(value) is type(each) and value == each for each in inner)
        elif kind in LISTS:
            several = isinstance(value, list | tuple)
            right = several and all(_fits(each, _item(inner, i)) for i, each in enumerate(value))
        elif kind in MAPPINGS:
            right = isinstance(value, Mapping)
            right = right and all(
                _fits(each, inner[-1] if inner else Any) for each in value.values()
            )
        else:
            right = (
                kind not in PLAIN or type(value) is kind or (kind is float and type(value) is int)
            )
        if right:
            return True
    return False


def _item(inner: tuple[Any, ...], index: int) -> Any:
    """The type of an item: tuple[int, str] has one for each, list[int] one for all."""
    if len(inner) < 2 or inner[-1] is Ellipsis:
        return inner[0] if inner else Any
    return inner[index] if index < len(inner) else Any


def _options(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_understood(option: Any) -> bool:
    kind = typing.get_origin(option) or option
    return kind is typing.Literal or kind in (*PLAIN, *LISTS, *MAPPINGS)


def _named(option: Any) -> str:
    if option is types.NoneType:
        return "null"
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(map(str, typing.get_args(option)))
    return option.__name__ if option in PLAIN else str(option).rpartition(".")[2]
