"""Names that come from outside (classes, files, groups), made safe for terminals, tables and pages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np

from cl.errors import DataError, shown

__all__ = ["cell", "class_name", "class_names", "shown"]

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def cell(text: object) -> str:
    """`shown`, for a CSV that people open in a spreadsheet: nothing in it begins a formula.

    A text that begins with =, +, - or @ gets an apostrophe before it; numbers are left as they are.
    """
    safe = shown(text)
    formula = safe.lstrip().startswith(tuple("=+-@＝＋－＠"))
    return f"'{safe}" if formula and not NUMBER.fullmatch(safe) else safe


def class_name(value: Any) -> str:
    """The name of a class from a label: a string, or a whole number of Python or numpy.

    Strings are normalised (NFC), stripped of blanks and `shown`. DataError for anything else.
    """
    if isinstance(value, str):
        name = shown(unicodedata.normalize("NFC", value).strip())
        if not name:
            raise DataError(f"A label is {value!r}: the name of a class must not be blank.")
        return name
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))
    told = next(told for kinds, told in ADVICE if isinstance(value, kinds))
    raise DataError(
        f"A label is {_brief(value)} ({type(value).__name__}); labels are whole numbers or strings, one "
        f"per image. {told}"
    )


def class_names(values: Iterable[Any], where: object) -> tuple[str, ...]:
    """The names of all classes; a DataError that names both if two are written differently and would be one.

    where: what the error begins with, such as a folder.
    """
    names: list[str] = []
    found: dict[str, Any] = {}
    for value in values:
        try:
            names.append(name := class_name(value))
        except DataError as error:
            raise DataError(f"{shown(where)}: {error}") from None
        if found.setdefault(name, value) != value:
            raise DataError(
                f"{shown(where)}: {found[name]!a} and {value!a} are both the class {name}. "
                "Give one of them another name, or put their images together."
            )
    return tuple(names)


ADVICE: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((bool, np.bool_), "Give 0 and 1, labels.astype(int), or the classes' names."),
    ((float, np.floating), "labels.astype(int) makes whole numbers, if no label is missing (NaN)."),
    ((bytes, np.bytes_), "labels.astype(str) or label.decode() makes strings."),
    (
        (np.ndarray, list, tuple),
        "labels[:, 0] takes them out of a column, labels.argmax(1) out of one-hot rows.",
    ),
    (object, "[str(label) for label in labels] names the classes by how they are written."),
)
"""What to do with labels of other types."""


def _brief(value: object, limit: int = 60) -> str:
    text = ascii(value).replace("\\n", " ")
    return text if len(text) <= limit else f"{text[:limit]} …"
