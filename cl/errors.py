"""Errors that a user can act on: what is wrong, where, and what to type instead."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""The kinds of characters that are not seen but obeyed: controls, marks of direction, halves of characters
(bytes of a file name that are no UTF-8), ends of lines."""

JOINERS = frozenset("\u200c\u200d")
"""Invisible too, but part of Persian and Indic words and of emoji."""


class PalimpsestError(Exception):
    """The base of all errors that are the input's fault; shown without a traceback.

    The names in its text are those of files and classes: what a terminal would obey is written out.
    """

    def __str__(self) -> str:
        return shown(super().__str__(), keep="\n")


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


@contextmanager
def explained(kind: type[PalimpsestError], what: str, advice: str = "") -> Iterator[None]:
    """Turn whatever a parser raises into "what: its first line. advice"; the project's errors pass."""
    try:
        yield
    except PalimpsestError:
        raise
    except FileNotFoundError as error:
        raise kind(f"{what}: {error.filename or 'a file'} is missing. {advice}".strip()) from None
    except Exception as error:  # parsers raise any kind: zlib.error, RecursionError, MemoryError …
        lines = str(error).strip().splitlines()
        told = lines[0].rstrip(".") if lines else type(error).__name__
        raise kind(f"{what}: {told}. {advice}".strip()) from None


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


def shown(text: object, keep: str = "") -> str:
    """The text on one line, with what is not seen but obeyed (escape sequences, marks of direction, ends of
    lines) written out, such as \\x1b. What was shown once stays as it is. keep: characters to leave."""
    return "".join(c if c in keep else _written_out(c) for c in str(text))


def _written_out(character: str) -> str:
    if unicodedata.category(character) in HIDDEN and character not in JOINERS:
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character
