"""Where data sets lie, and how they are fetched where they do not."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cl.data.datasets import DataCard, missing
from cl.data.sharing import alone
from cl.errors import DataError


def data_folder() -> Path:
    """Where the data sets are looked for: CL_DATA_DIR, or ./data."""
    return Path(os.environ.get("CL_DATA_DIR", "data"))


def offline() -> bool:
    """True if CL_OFFLINE is set: then nothing is downloaded."""
    return bool(os.environ.get("CL_OFFLINE"))


def fetched(
    name: str,
    source: Callable[[str, bool], Any],
    parts: Sequence[str],
    layout: str,
    card: DataCard,
) -> list[Any]:
    """`source(part, download)` of each part: as it lies there, else downloaded and checked by torchvision.

    Of several processes one downloads. Nothing is downloaded if CL_OFFLINE is set. MissingDataError says
    what must lie where; DataError if what lies there was left by a download that was cut off.
    """
    begun = data_folder() / f".{name}.download"
    if not begun.exists():
        try:
            return [source(part, False) for part in parts]
        except Exception as error:  # torchvision: RuntimeError; its readers raise many other kinds
            reason: Exception = error
    else:
        reason = DataError(f"{begun}: a download was cut off")
    if not offline():
        try:
            with alone(begun):
                return _download(source, parts, begun, layout)
        except DataError:
            raise
        except Exception as error:  # no network, refused, a wrong checksum
            reason = error
    raise missing(name, data_folder(), layout, card, reason)


def _download(
    source: Callable[[str, bool], Any], parts: Sequence[str], begun: Path, layout: str
) -> list[Any]:
    """`begun` lies there while torchvision writes, which takes a folder that is half full for a whole one."""
    try:
        found = [source(part, False) for part in parts]
    except Exception:  # not there yet
        begun.touch()
        found = [source(part, True) for part in parts]
        begun.unlink()
        return found
    if begun.exists():
        raise DataError(
            f"A download into {begun.parent} was cut off, and a part may be missing of:\n{layout}\n"
            f"Delete that and {begun}; then it is downloaded again."
        )
    return found  # another process was faster
