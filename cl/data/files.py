"""Images in files, decoded when a batch is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cl.data.arrays import Array
from cl.data.computed import computed
from cl.data.decoding import AVIF, decode_all, read_bytes

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".gif", ".webp", ".tif", ".tiff")
    + (".ppm", ".pgm", ".pbm", ".pnm")
    + ((".avif",) if AVIF else ())
)


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in the order of their names; hidden ones are left out."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    return [folder / name for name in names]


def file_images(files: Sequence[Path], size: int, key: str) -> Array:
    """The images of `files` as uint8 N × size × size × 3, decoded when they are read.

    The shorter side is scaled to `size` and the middle is cut out. Grey images become colour images;
    transparency is put on white. The threads of one pool decode a batch.
    """
    paths = np.array([os.fspath(file) for file in files])

    def make(rows: Array) -> Array:
        chosen = [Path(str(paths[row])) for row in rows]
        return decode_all(chosen, size, [str(path) for path in chosen])

    def stored(rows: Array) -> Iterator[bytes]:
        return (read_bytes(Path(str(paths[row]))) for row in rows)

    return computed((len(files), size, size, 3), make, key, stored)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its suffix, and not if it is hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122
