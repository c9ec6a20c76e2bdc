"""Archives of images: looked through before anything is written, and unpacked once."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rich.progress import track

from cl.data.files import is_image, subfolders
from cl.errors import DataError

OPENERS: dict[str, Callable[[Path], Any]] = {
    ".tar": lambda file: file.open("rb"),
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
ARCHIVES = (".zip", *OPENERS)
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


def is_archive(file: Path | str) -> bool:
    """Whether the name is that of an archive that `unpacked` reads."""
    return str(file).lower().endswith(ARCHIVES)


def unpacked(file: Path) -> Path:
    """The folder of the images in a zip or tar archive, unpacked beside it the first time.

    Only images are written. DataError, before anything is written, if a path in the archive leads out of
    its folder, if it holds links or devices, if it would unpack to more than `RATIO` times its size, or
    if the disk has no room for that. A single folder around everything is passed over.
    """
    target = file.with_name(file.name + ".unpacked")
    note = f"{file.stat().st_size} {file.stat().st_mtime_ns}"
    if not target.exists():
        _unpack(file, target, note)
    elif not (made := target / ".archive").exists() or made.read_text() != note:
        raise DataError(
            f"{file} has changed since it was unpacked to {target}. Delete that folder."
        )
    while len(inner := subfolders(target)) == 1 and subfolders(inner[0]):
        target = inner[0]
    return target


def check_npz(file: Path) -> None:
    """Raise DataError if the arrays in a `.npz` file are so large that it must be a bomb."""
    with zipfile.ZipFile(file) as source:
        _check_size(file, sum(info.file_size for info in source.infolist()), _limit(file))


def _unpack(file: Path, target: Path, note: str) -> None:
    partial = target.with_suffix(".partial")
    try:
        limit = _limit(file)
        entries = list(_checked(_entries(file, limit), file, limit))
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir()
        wanted = dict(entries)
        contents = _contents(file, wanted, limit)
        for name, content in track(contents, f"unpacking {file.name}", len(wanted), transient=True):
            place = partial / _path(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as out:
                shutil.copyfileobj(content, out)
        (partial / ".archive").write_text(note)
        partial.rename(target)
    except DAMAGE as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(f"{file} cannot be unpacked: {error}.") from None


def _checked(entries: Iterator[Entry], file: Path, limit: int) -> Iterator[Entry]:
    """The images among the entries; a DataError for the first that must not be unpacked."""
    total, room, names = 0, shutil.disk_usage(file.parent).free, set()
    for name, size in entries:
        path = _path(name)
        if path.is_absolute() or ".." in path.parts or DRIVE.match(name):
            raise DataError(f"{file}: the path {name!r} in it leads outside. Nothing was unpacked.")
        total += size
        _check_size(file, total, limit)
        if total > room:
            raise DataError(
                f"{file}: it unpacks to more than {total / 1e9:.1f} GB, and the disk has "
                f"{room / 1e9:.1f} GB left. Nothing was unpacked."
            )
        if path in names:
            raise DataError(f"{file}: {name!r} is in it twice. Nothing was unpacked.")
        names.add(path)
        if is_image(path.name) and "__MACOSX" not in path.parts:
            yield name, size


def _check_size(file: Path, total: int, limit: int) -> None:
    if total > limit:
        raise DataError(
            f"{file}: it would unpack to more than {limit / 1e6:.0f} MB, {RATIO} times its size, as "
            "no archive of images does. Nothing was unpacked. If you trust it, unpack it yourself."
        )


def _limit(file: Path) -> int:
    return max(SMALL, RATIO * file.stat().st_size)


def _entries(file: Path, limit: int) -> Iterator[Entry]:
    """Name and size of each file in the archive; a DataError for links and devices."""
    if file.name.lower().endswith(".zip"):
        with zipfile.ZipFile(file) as source:
            for info in source.infolist():
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _no_file(file, info.filename)
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


def _contents(file: Path, wanted: dict[str, int], limit: int) -> Iterator[tuple[str, IO[bytes]]]:
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
        _check_size(self.file, self.total, self.limit)
        return content


def _path(name: str) -> PurePosixPath:
    """A path of the archive; those of Windows have backslashes."""
    return PurePosixPath(name.replace("\\", "/"))


def _no_file(file: Path, name: str) -> DataError:
    return DataError(f"{file}: {name!r} in it is a link or a device. Nothing was unpacked.")
