"""Where data sets lie, and how they are fetched where they do not."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cl.data.datasets import DataCard, missing


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

    Nothing is downloaded if CL_OFFLINE is set. MissingDataError says what must lie where.
    """
    try:
        return [source(part, False) for part in parts]
    except Exception as error:  # torchvision: RuntimeError; its readers raise many other kinds
        reason: Exception = error
    if not offline():
        try:
            return [source(part, True) for part in parts]
        except Exception as error:  # no network, refused, a wrong checksum
            reason = error
    raise missing(name, data_folder(), layout, card, reason)
