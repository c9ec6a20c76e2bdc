"""Images in files: found, checked and decoded when a batch is read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from cl.data.arrays import Array
from cl.data.computed import computed
from cl.errors import DataError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and its folders, in the order of their names."""
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(place, name) for name in sorted(names) if is_image(name)]
    return found


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


def read_bytes(file: Path) -> bytes:
    """The content of a file; a DataError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}.") from None


def decode_all(sources: Sequence[Path | bytes], size: int, names: Sequence[str]) -> Array:
    """A batch of images, uint8 B × size × size × 3; see `decode`."""
    sides = [size] * len(sources)
    return np.stack(list(_pool().map(decode, sources, sides, names)))


def decode(source: Path | bytes, size: int, name: str = "") -> Array:
    """One image from a file or its content, uint8 size × size × 3.

    A DataError gives its name (the path if there is none) if it cannot be decoded.
    """
    from PIL import Image, ImageOps

    name = name or str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.draft("RGB", (size, size))  # a large JPEG is decoded at a fraction of its size
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                over = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
            fitted = ImageOps.fit(upright.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
            return np.asarray(fitted)
    except FileNotFoundError:
        raise DataError(f"{name} is missing.") from None
    except Exception as error:  # Pillow raises many kinds, DecompressionBombError among them
        raise DataError(
            f"{name} cannot be decoded ({error}). Delete or replace it, or let a folder stream leave "
            "such images out: stream.skip_unreadable=true"
        ) from None


def unreadable(files: Sequence[Path]) -> list[int]:
    """Which of `files` cannot be decoded. It opens every file."""
    return [i for i, bad in enumerate(_pool().map(_is_unreadable, files)) if bad]


def _is_unreadable(file: Path) -> bool:
    try:
        decode(file, 8)
    except DataError:
        return True
    return False


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its suffix, and not if it is hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="decode")
