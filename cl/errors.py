"""Errors that a user can act on: what is wrong, where, and what to type instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PalimpsestError(Exception):
    """The base of all errors that are the input's fault; shown without a traceback."""


class ConfigurationError(PalimpsestError):
    """A name, a key or a value of the configuration is wrong."""


class DataError(PalimpsestError):
    """A data set is missing, damaged or inconsistent."""


class WeightsError(PalimpsestError):
    """Pretrained or saved weights are missing or do not fit."""


class ResourceError(PalimpsestError):
    """The memory or the disk does not suffice."""


class DivergenceError(PalimpsestError):
    """The loss is not a number any more, or infinite."""


def require(condition: bool, message: str) -> None:
    """Raise `ConfigurationError(message)` unless `condition` holds."""
    if not condition:
        raise ConfigurationError(message)


def require_one_of(key: str, value: str, valid: Iterable[str]) -> None:
    """Raise `ConfigurationError` unless `value`, that of the configuration's `key`, is in `valid`."""
    options = tuple(valid)
    require(value in options, f"{key}={value} is not known. {suggest(value, options)}")


def suggest(name: str, valid: Iterable[str]) -> str:
    """A sentence with the names nearest to `name`, or all of them when none is near."""
    options = sorted(set(valid))
    lowered = {option.lower(): option for option in options}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, 3, 0.6)]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    shown = ", ".join(options[:40]) + (" …" if len(options) > 40 else "")
    return f"Valid: {shown}." if options else "There is none."
