"""What is in an archive of images: looked through before anything of it is written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cl.data.files import is_image
from cl.errors import DataError

OPENERS: dict[str, Callable[[Path], Any]] = {
    ".tar": lambda file: file.open("rb"),
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
DRIVE = re.compile("[A-Za-z]:")
"""How an absolute path of Windows begins."""

RATIO = 100
"""An archive may unpack to so many times its own size: images hardly shrink at all."""
SMALL = 64 * 2**20
"""So many bytes it may unpack to whatever its size."""

Entry = tuple[str, int]
"""The name of an image in the archive and its size in bytes."""

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,  # zipfile: a password is needed
    ValueError,
)


def listed(file: Path) -> dict[str, int]:
    """The images in an archive and their bytes; a DataError if it must not be unpacked."""
    try:
        limit = size_limit(file)
        return dict(_checked(_entries(file, limit), file, limit))
    except DAMAGE as error:
        raise damaged(file, error) from None


def damaged(file: Path, error: Exception) -> DataError:
    """The error for what a reader of archives raised."""
    return DataError(f"{file} cannot be unpacked: {error}.")


def _checked(entries: Iterator[Entry], file: Path, limit: int) -> Iterator[Entry]:
    """The images among the entries; a DataError for the first that must not be unpacked."""
    total, names = 0, set()
    for name, size in entries:
        path = inner_path(name)
        if path.is_absolute() or ".." in path.parts or DRIVE.match(name):
            raise DataError(f"{file}: the path {name!r} in it leads outside. Nothing was unpacked.")
        total += size
        check_size(file, total, limit)
        if path in names:
            raise DataError(f"{file}: {name!r} is in it twice. Nothing was unpacked.")
        names.add(path)
        if is_image(path.name) and "__MACOSX" not in path.parts:
            yield name, size


def check_size(file: Path, total: int, limit: int) -> None:
    """Raise DataError if so many bytes are more than an archive of images unpacks to."""
    if total > limit:
        raise DataError(
            f"{file}: it would unpack to more than {limit / 1e6:.0f} MB, {RATIO} times its size, as "
            "no archive of images does. Nothing was unpacked. If you trust it, unpack it yourself."
        )


def size_limit(file: Path) -> int:
    """So many bytes an archive may unpack to."""
    return max(SMALL, RATIO * file.stat().st_size)


def _entries(file: Path, limit: int) -> Iterator[Entry]:
    """Name and size of each file in the archive; a DataError for links and devices."""
    if file.name.lower().endswith(".zip"):
        with zipfile.ZipFile(file) as source:
            for info in source.infolist():
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _no_file(file, info.filename)
                _check_name(source, info)
                # A folder is an entry too: its path is looked at.
                yield info.filename, info.file_size
        return
    with _tar(file, limit) as (source, stream):
        for member in source:
            if not (member.isreg() or member.isdir()):
                raise _no_file(file, member.name)
            yield member.name, member.size
        if any(stream.last):  # an archive ends with zeros; tarfile takes any end for the end
            raise EOFError("its end is missing")
        while stream.read(1 << 20):
            pass  # the checksum stands at the end, which tarfile does not read


def _check_name(source: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """BadZipFile if the name in the list at the end is not the one beside the file itself.

    `ZipFile.open` checks it for what is unpacked; a damaged name could turn an image into what is not.
    """
    if not is_image(info.filename):
        with suppress(NotImplementedError, RuntimeError), source.open(info):
            pass  # packed in another way, or with a password: it is not unpacked


def contents(file: Path, wanted: dict[str, int], limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """The wanted files, to be read before the next one is asked for."""
    if file.name.lower().endswith(".zip"):
        with zipfile.ZipFile(file) as source:
            for name in wanted:
                with source.open(name) as content:
                    yield name, content
        return
    with _tar(file, limit) as (source, _):
        for member in source:
            if member.name in wanted and (found := source.extractfile(member)) is not None:
                yield member.name, found


@contextmanager
def _tar(file: Path, limit: int) -> Iterator[tuple[tarfile.TarFile, _Limited]]:
    """The archive as a stream: it is read once from front to back, and never past `limit` bytes."""
    suffix = next(suffix for suffix in OPENERS if file.name.lower().endswith(suffix))
    with OPENERS[suffix](file) as content:
        stream = _Limited(content, file, limit)
        with tarfile.open(fileobj=stream, mode="r|") as source:
            yield source, stream


class _Limited(io.RawIOBase):
    """What comes out of a decompressor, until it is too much: a header too may be a bomb."""

    def __init__(self, source: Any, file: Path, limit: int) -> None:
        self.source, self.file, self.limit, self.total = source, file, limit, 0
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        content: bytes = self.source.read(size)
        self.total += len(content)
        self.last = content[-tarfile.BLOCKSIZE :] or self.last
        check_size(self.file, self.total, self.limit)
        return content


def inner_path(name: str) -> PurePosixPath:
    """A path in the archive; those of Windows have backslashes."""
    return PurePosixPath(name.replace("\\", "/"))


def _no_file(file: Path, name: str) -> DataError:
    return DataError(f"{file}: {name!r} in it is a link or a device. Nothing was unpacked.")
