"""Build the object that a configuration node names, and say what is wrong with the node if it fails."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cl.errors import ConfigurationError, require, suggest


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
    """`value` if it fits the simple types of `hint`; an int where a float is wanted is converted."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    simple = [option for option in options if option in (int, float, bool, str, type(None))]
    if len(simple) != len(options):
        return value  # lists, literals and classes are checked by whoever takes them
    if type(value) in simple:
        return value
    if type(value) is int and float in simple:
        return float(value)
    wanted = " or ".join("null" if o is type(None) else o.__name__ for o in simple)
    raise ConfigurationError(f"{where}={value}: it must be {wanted}, not {type(value).__name__}.")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
