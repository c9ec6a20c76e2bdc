"""The checkpoint of a learner between two steps: training.safetensors and training.json."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from cl.checkpoint import (
    check_layout,
    check_numbers,
    layout,
    load_json,
    load_tensors,
    save_json,
    save_tensors,
)
from cl.errors import PalimpsestError, WeightsError, explained
from cl.stored import fields

TENSORS, VALUES = "training.safetensors", "training.json"


class MidwayError(WeightsError):
    """A checkpoint between two steps that cannot be what was written."""


@contextmanager
def checking(folder: Path) -> Iterator[None]:
    """Turn whatever malformed content leads to into a MidwayError."""
    try:
        with explained(WeightsError, f"{folder} does not fit"):
            yield
    except PalimpsestError as error:
        raise MidwayError(str(error)) from None


def write_midway(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write both files into a folder that is there."""
    save_tensors(tensors, folder / TENSORS)
    save_json({**values, "layout": layout(tensors)}, folder / VALUES)


def load_midway(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_midway` wrote; WeightsError if it is damaged."""
    tensors = load_tensors(folder / TENSORS)
    kinds = {"attributes": dict, "training": dict}
    values = fields(load_json(folder / VALUES), folder / VALUES, kinds, WeightsError)
    check_layout(tensors, values.get("layout"), folder)
    for name, tensor in tensors.items():
        if name.startswith("model."):
            check_numbers(tensor, f"{folder}: {name}")
    return tensors, values
