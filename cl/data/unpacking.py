"""Archives of images: looked through before anything is written, and unpacked once."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

from rich.progress import track

from cl.data.archives import (
    DAMAGE,
    OPENERS,
    check_size,
    contents,
    damaged,
    inner_path,
    listed,
    size_limit,
)
from cl.data.files import is_image, subfolders
from cl.data.sharing import alone, aside, clear
from cl.errors import DataError
from cl.stored import require_file

ARCHIVES = (".zip", *OPENERS)

MARK = ".archive"
"""The file in the folder that says of which archive it is, and how many images and bytes it holds."""

Held = tuple[int, int]
"""How many images, and how many bytes they have together."""


def is_archive(file: Path | str) -> bool:
    """Whether the name is that of an archive that `unpacked` reads."""
    return str(file).lower().endswith(ARCHIVES)


def unpacked(file: Path) -> Path:
    """The folder of the images in a zip or tar archive, unpacked beside it the first time.

    Only images are written. DataError, before anything is written, if a path in the archive leads out of
    its folder, if it holds links or devices, if it would unpack to more than `RATIO` times its size, or
    if the disk has no room for that. A single folder around everything is passed over.

    Of several processes one unpacks, and the others wait for it. The images in the folder are counted each
    time: where some are missing, it is unpacked again; a DataError if there are others.
    """
    target = file.with_name(file.name + ".unpacked")
    try:
        if not _is_whole(file, target):
            with alone(file):
                if not _is_whole(file, target, warn=True):
                    _unpack(file, target)
    except OSError as error:
        raise DataError(
            f"{file} cannot be unpacked beside itself ({error}). Copy it to a folder that you can write "
            "to, or unpack it yourself and give its folder in the place of the archive."
        ) from None
    while len(inner := subfolders(target)) == 1 and subfolders(inner[0]):
        target = inner[0]
    return target


def check_npz(file: Path) -> None:
    """Raise DataError if the arrays in a `.npz` file are so large that it must be a bomb."""
    with zipfile.ZipFile(file) as source:
        check_size(file, sum(info.file_size for info in source.infolist()), size_limit(file))


def _is_whole(file: Path, target: Path, warn: bool = False) -> bool:
    """Whether all images of the archive are in the folder; DataError if it is not the folder of this archive.

    warn: say so if some are missing.
    """
    if not target.exists():
        return False
    mark = _read_mark(target)
    if mark[:2] != _state(file):
        raise DataError(
            f"{file} has changed since it was unpacked to {target}. Delete that folder."
        )
    if marked := len(mark) == 4 and "".join(mark).isdecimal():
        expected = (int(mark[2]), int(mark[3]))
    else:  # of version 0.1, which marked short folders too
        expected = _total(listed(file))
    found = _held(target)
    if found[0] < expected[0] or found[1] < expected[1]:
        if warn:
            print(
                f"{target} holds {_shown(found)} of {_shown(expected)}: it is unpacked again.",
                file=sys.stderr,
            )
        return False
    if found != expected:
        raise DataError(
            f"{target} holds {_shown(found)}, and the archive {_shown(expected)}. Delete that folder, or, "
            "if you changed it on purpose, rename it and give it in the place of the archive."
        )
    if not marked:
        with suppress(OSError):  # it may be read-only; then it is counted again the next time
            _write_mark(file, target, expected)
    return True


def _unpack(file: Path, target: Path) -> None:
    """Write the images to the side, and rename their folder when they are all there."""
    wanted = listed(file)
    clear(file)
    _check_room(file, _total(wanted)[1])
    partial = aside(file)
    partial.mkdir()
    try:
        _write(file, wanted, partial)
        if target.exists():  # a short one
            target.rename(old := aside(file))
            partial.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_room(file: Path, total: int) -> None:
    room = shutil.disk_usage(file.parent).free
    if total > room:
        raise DataError(
            f"{file}: it unpacks to {total / 1e9:.1f} GB, and the disk has {room / 1e9:.1f} GB left. "
            "Nothing was unpacked."
        )


def _write(file: Path, wanted: dict[str, int], folder: Path) -> None:
    try:
        files = contents(file, wanted, size_limit(file))
        for name, content in track(files, f"unpacking {file.name}", len(wanted), transient=True):
            place = folder / inner_path(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as out:
                shutil.copyfileobj(content, out)
        if (found := _held(folder)) != _total(wanted):
            raise EOFError(f"only {_shown(found)} of {_shown(_total(wanted))} came out")
        _write_mark(file, folder, found)
    except DAMAGE as error:
        raise damaged(file, error) from None


def _read_mark(folder: Path) -> list[str]:
    """The archive's size and time, its images and their bytes; version 0.1 wrote only the first two."""
    if not (folder / MARK).exists():
        return []
    require_file(folder / MARK, 1 << 10)
    return (folder / MARK).read_text(errors="replace").split()


def _write_mark(file: Path, folder: Path, held: Held) -> None:
    beside = aside(folder / MARK)
    beside.write_text(" ".join([*_state(file), *map(str, held)]))
    beside.replace(folder / MARK)


def _state(file: Path) -> list[str]:
    """What changes when the archive does."""
    return [str(file.stat().st_size), str(file.stat().st_mtime_ns)]


def _total(images: dict[str, int]) -> Held:
    return len(images), sum(images.values())


def _held(folder: Path) -> Held:
    """Counted as the archive's list is: in hidden folders, too."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    sizes = [file.lstat().st_size for file in files if is_image(file.name)]
    return len(sizes), sum(sizes)


def _shown(held: Held) -> str:
    return f"{held[0]:,} images ({held[1]:,} bytes)"
