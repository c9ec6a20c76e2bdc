"""Stored JSON and YAML, read as plain data: of a bounded size, and with nothing in it to resolve."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl.errors import ConfigurationError, DataError, PalimpsestError, require

JSON_BYTES = 1 << 24
YAML_BYTES = 1 << 18
"""A megabyte of YAML takes ten seconds to read; the classes of ImageNet-21k in some order have 200 KB."""
LINES_BYTES = 1 << 30
LINE_BYTES = 1 << 20
TEXT_LENGTH = 10_000
"""Of one YAML value: 1:1:1:… is a number to the base 60, and a long one takes long."""
VALUES, DEPTH = 100_000, 40
"""Of a configuration, which takes longer to make than to read."""


def load_json(file: Path, error: type[PalimpsestError] = DataError) -> Any:
    """The content of a JSON file; raises `error` if it is missing, damaged or too large."""
    return _parsed(file, JSON_BYTES, json.loads, error)


def load_yaml(file: Path, error: type[PalimpsestError] = DataError) -> Any:
    """The content of a YAML file without aliases and tags; raises `error` as `load_json` does."""
    return _parsed(file, YAML_BYTES, lambda text: yaml.load(text, _PlainLoader), error)


def json_lines(
    file: Path, damaged: list[int] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a file and the object in each; one that a kill cut short, or that holds none, is left out.

    damaged: gets the numbers of such lines, from 1, but not that of a last one that was cut short. Raises
    DataError when the file or a line of it is too large, or cannot be read.
    """
    require_file(file, LINES_BYTES, DataError)
    with file.open("rb") as lines:
        number = 0
        while line := lines.readline(LINE_BYTES + 1):
            number += 1
            if len(line) > LINE_BYTES:
                raise DataError(f"{file} is damaged: a line has more than {_size(LINE_BYTES)}.")
            try:
                text = line.decode("utf-8").rstrip("\n")
                content = json.loads(text)
            except (ValueError, RecursionError):
                content = None
            if isinstance(content, dict):
                yield text, content
            elif damaged is not None and line.endswith(b"\n"):
                damaged.append(number)


def fields(
    content: Any,
    where: Path | str,
    kinds: Mapping[str, Any],
    error: type[PalimpsestError] = DataError,
) -> dict[str, Any]:
    """`content` if it is an object with the fields `kinds`, each of its type; others may be there too."""
    if not isinstance(content, dict):
        raise error(f"{where} is damaged: it holds no object with fields.")
    for name, kind in kinds.items():
        options = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        if name not in content:
            raise error(f"{where} is damaged: {name} is missing.")
        if type(content[name]) not in options:
            wanted = " or ".join("null" if o is NoneType else o.__name__ for o in options)
            found = type(content[name]).__name__
            raise error(f"{where} is damaged: {name} must be {wanted}, not {found}.")
    return content


def require_alike(found: Any, present: Any, where: str) -> None:
    """Raise ValueError unless `found` has the form of `present`: the same keys, lengths and types.

    Numbers must be finite and not negative.
    """
    inner: list[tuple[Any, Any, Any]] = []
    if isinstance(present, dict):
        right = isinstance(found, dict) and found.keys() == present.keys()
        inner = [(key, found[key], present[key]) for key in present if right]
    elif isinstance(present, list | tuple):
        right = isinstance(found, list) and len(found) == len(present)
        inner = [(index, found[index], each) for index, each in enumerate(present) if right]
    elif type(present) in (int, float):
        right = type(found) in (int, float) and 0 <= found < math.inf
    else:
        right = type(found) is type(present)
    if not right:
        raise ValueError(f"{where} cannot be {str(found)[:40]}")
    for key, value, model in inner:
        require_alike(value, model, f"{where}.{key}")


def as_config(content: Any, where: Path | str) -> DictConfig:
    """Plain data as a configuration. Raises ConfigurationError if anything in it could be resolved.

    An interpolation such as ${oc.env:HOME} would bring what only this machine knows into logs and copies.
    """
    require(isinstance(content, Mapping), f"{where} is damaged: it holds no configuration.")
    waiting: list[tuple[Any, int]] = [(content, 0)]
    values = 0
    while waiting:
        value, depth = waiting.pop()
        values += 1
        require(
            values <= VALUES and depth <= DEPTH,
            f"{where} is damaged: more than {VALUES:,} values, or deeper than {DEPTH}.",
        )
        if isinstance(value, Mapping):
            waiting += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list):
            waiting += [(each, depth + 1) for each in value]
        elif isinstance(value, str) and "${" in value:
            raise ConfigurationError(
                f"{where} holds {value[:60]!r}. Nothing is looked up for a stored configuration: "
                "write the value itself in its place."
            )
    try:
        return OmegaConf.create(dict(content))
    except OmegaConfBaseException as problem:
        raise ConfigurationError(f"{where} is damaged: {_first_line(problem)}") from None


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses aliases, which make much of little, and tags; reads 1e-4 as a number and dates as text."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        problem = None
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases (*name) are not read"
        elif getattr(event, "tag", None) is not None:
            problem = f"tags ({event.tag[:60]}) are not read"
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > TEXT_LENGTH:
            problem = f"a value of more than {TEXT_LENGTH:,} characters"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?|\d*\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _parsed(
    file: Path, limit: int, parse: Callable[[str], Any], error: type[PalimpsestError]
) -> Any:
    require_file(file, limit, error)
    try:
        with file.open("rb") as content:
            text = content.read(limit + 1).decode("utf-8")
        return parse(text)
    except RecursionError:
        raise error(f"{file} is damaged: it is nested too deeply.") from None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = "" if mark is None else f" (line {mark.line + 1})"
        raise error(f"{file} is damaged: {problem.problem}{line}.") from None
    except (OSError, ValueError, ArithmeticError, yaml.YAMLError) as problem:
        raise error(f"{file} is damaged: {_first_line(problem)}.") from None


def require_file(file: Path, limit: int, error: type[PalimpsestError] = DataError) -> None:
    """Raise `error` unless this is a file of at most `limit` bytes: a pipe would be waited for."""
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise error(f"{file} is missing.") from None
    except (OSError, ValueError) as problem:
        raise error(f"{file} cannot be read: {problem}.") from None
    if not file.is_file():
        raise error(f"{file} is damaged: it is no file.")
    if size > limit:
        raise error(f"{file} is damaged: it has more than {_size(limit)}.")


def _size(limit: int) -> str:
    return f"{limit >> 20} MB" if limit >= 1 << 20 else f"{limit >> 10} KB"


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().partition("\n")[0]
