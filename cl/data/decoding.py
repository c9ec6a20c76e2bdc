"""Images decoded: of few formats, from regular files only, and never too many pixels at once."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cl.data.arrays import Array, bytes_of
from cl.errors import DataError
from cl.names import shown

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFile import ImageFile

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF")
"""What is opened, whatever a file is called: Pillow would hand PostScript to another program."""
AVIF = ("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()
"""In newer versions of Pillow."""

HEADERS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|BM|GIF8|P[0-7fy]|RIFF....WEBP|II[*+]\0|MM\0[*+]|II\0\*|MM\*\0|....ftyp",
    re.DOTALL,
)
"""How files of these formats begin."""

LOOKED_AT = 50_000
"""The first bytes of so many files are read before a stream begins."""

PIXELS = 90_000_000
"""So many are decoded at once, by all threads together: about 0.4 GB, 1.7 GB where there is transparency."""


def decode_all(sources: Sequence[Path | bytes], size: int, names: Sequence[str]) -> Array:
    """A batch of images, uint8 B × size × size × 3; see `decode`."""
    sides = [size] * len(sources)
    return np.stack(list(_pool().map(decode, sources, sides, names)))


def decode(source: Path | bytes, size: int, name: str = "") -> Array:
    """One image from a file or its content, uint8 size × size × 3.

    The whole range of 16-bit grey becomes 0 … 255. A DataError gives its name (the path if there is none)
    if it cannot be decoded, is no regular file, has more than `PIXELS` pixels, or float or signed ones.
    """
    name = shown(name or source)
    try:
        with opened(source) as file:
            return _decoded(file, size)
    except FileNotFoundError:
        raise DataError(f"{name} is missing.") from None
    except Exception as error:  # Pillow raises many kinds, DecompressionBombError among them
        raise DataError(
            f"{name} cannot be decoded ({shown(error)}). Delete or replace it, or let a folder stream leave "
            "such images out: stream.skip_unreadable=true"
        ) from None


def read_bytes(file: Path) -> bytes:
    """The content of a regular file; a DataError if it cannot be read."""
    try:
        with opened(file) as content:
            return content.read()
    except OSError as error:
        raise DataError(f"{shown(file)} cannot be read: {error}.") from None


def unreadable(files: Sequence[Path]) -> list[int]:
    """Which of `files` cannot be decoded. It opens every file."""
    return [i for i, bad in enumerate(_pool().map(_is_unreadable, files)) if bad]


def headless(files: Sequence[Path]) -> list[Path]:
    """Which of `files` do not begin as an image. Of very many only `LOOKED_AT` are opened, evenly."""
    chosen = files[:: -(-len(files) // LOOKED_AT) or 1]
    pieces = [chosen[start : start + 500] for start in range(0, len(chosen), 500)]
    found = _pool().map(lambda piece: [file for file in piece if not _has_header(file)], pieces)
    return [file for piece in found for file in piece]


@contextmanager
def opened(source: Path | bytes) -> Iterator[BinaryIO]:
    """A regular file, or bytes, to be read; DataError for a pipe or a device, which might never end."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    # What was opened is looked at, not the name, which may be another file by then.
    flags = [getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")]
    descriptor = os.open(source, os.O_RDONLY | sum(flags))
    with open(descriptor, "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError("it is a pipe, a device or a folder, not a file")
        yield file


def _has_header(file: Path) -> bool:
    try:
        with opened(file) as content:
            return HEADERS.match(content.read(16)) is not None
    except (OSError, DataError):
        return False


def _decoded(file: BinaryIO, size: int) -> Array:
    from PIL import Image, ImageOps

    with _recognised(file) as image:
        image.draft("RGB", (size, size))  # a large JPEG is decoded at a fraction of its size
        with _room(image.width, image.height):
            ImageOps.exif_transpose(image, in_place=True)
            fitted = ImageOps.fit(_opaque(image), (size, size), Image.Resampling.BICUBIC)
            return np.asarray(fitted if fitted.mode == "RGB" else fitted.convert("RGB"))


def _recognised(file: BinaryIO) -> ImageFile:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=(*FORMATS, *AVIF))
    except UnidentifiedImageError:
        known = ", ".join((*FORMATS, *AVIF))
        raise DataError(f"it is damaged, or none of {known}") from None


def _opaque(image: ImageFile) -> Picture:
    """With 8 bits a channel, in RGB or grey: grey takes a quarter of the memory until it is small."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        return _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        over = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    wanted = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _eight_bits(image: ImageFile) -> Picture:
    """Grey of 16 bits as 8; other depths are refused."""
    from PIL import Image

    pixels = np.asarray(image)
    if not image.mode.startswith("I;16") and image.format != "PPM":  # Pillow's PGM has int32
        raise DataError(
            f"its pixels are {pixels.dtype}, which does not say what is black and what is white; "
            "save it with 8 bits or unsigned 16 bits"
        )
    twelve = getattr(image, "tag_v2", {}).get(258) == (12,)  # bits per sample of TIFF
    return Image.fromarray(bytes_of(pixels.astype(np.uint16), 12 if twelve else 16))


class _Budget:
    """Pixels that may be decoded at once; a thread waits until there is room for its own."""

    def __init__(self, pixels: int) -> None:
        self.left, self.changed = pixels, threading.Condition()

    def take(self, pixels: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.left >= pixels)
            self.left -= pixels

    def give(self, pixels: int) -> None:
        with self.changed:
            self.left += pixels
            self.changed.notify_all()


BUDGET = _Budget(PIXELS)


@contextmanager
def _room(width: int, height: int) -> Iterator[None]:
    pixels = width * height
    if pixels < 1:
        raise DataError(f"it has {width} × {height} pixels")
    if pixels > PIXELS:
        raise DataError(f"it has {width} × {height} pixels, more than {PIXELS / 1e6:.0f} million")
    BUDGET.take(pixels)
    try:
        yield
    finally:
        BUDGET.give(pixels)


def _is_unreadable(file: Path) -> bool:
    try:
        decode(file, 8)
    except DataError:
        return True
    return False


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="decode")
