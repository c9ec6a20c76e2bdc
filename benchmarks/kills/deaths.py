"""When a process dies: at a moment, or in the middle of what it does to the file system."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

PAGE = 4096
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
"""What Python tells of changes to the file system (its audit events), besides opening files to write."""


class Event(NamedTuple):
    """Something that a run is about to do to a file. bytes: what its folder takes before that."""

    name: str
    path: str
    bytes: int

    @property
    def opens(self) -> bool:
        """Whether a file is opened to be written."""
        return self.name == "open"


@dataclass(frozen=True)
class Moment:
    """When a run dies: before its `event`-th change of a file, counted from 0. None: never by itself.

    number: the signal. torn: it dies in the next write that makes a file longer than so many bytes.
    largest: no file can become larger; the error is that of a disk that takes no more.
    """

    number: int = signal.SIGKILL
    event: int | None = None
    torn: int | None = None
    largest: int | None = None

    def __call__(self, folder: Path) -> None:
        """Called in the process that is to die."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self.largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest, self.largest))
        if self.event is None:
            return
        count = -1

        def strike(name: str, path: str) -> None:
            nonlocal count
            count += 1
            if count != self.event:
                return
            if self.torn is None:
                os.kill(os.getpid(), self.number)
            else:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.torn, self.torn))

        observe(folder, strike)


def watched(log: Path) -> Callable[[Path], None]:
    """Instead of a death: each event becomes a line of `log`."""

    def prepare(folder: Path) -> None:
        lines = log.open("w")

        def note(name: str, path: str) -> None:
            lines.write(json.dumps([name, path, size(folder)]) + "\n")
            lines.flush()

        observe(folder, note)

    return prepare


def observe(folder: Path, told: Callable[[str, str], None]) -> None:
    """Call `told(name, path)` before every change in or below `folder`, for the rest of the process."""
    root = str(folder)
    fsync = os.fsync

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        path = changed(name, arguments)
        if path is not None and (path.startswith(root) or not path.startswith("/")):
            told(name, path)

    def synchronised(descriptor: int) -> None:
        told("fsync", "")
        fsync(descriptor)

    os.fsync = synchronised
    sys.addaudithook(hook)


def changed(name: str, arguments: tuple[Any, ...]) -> str | None:
    """The path that an audit event is going to change; None if it changes nothing.

    A path relative to a folder that is open (as `shutil.rmtree` uses them) is only a name.
    """
    if name == "open":
        path, mode, flags = arguments
        writes = flags & WRITING if mode is None else set(mode) & set("wax+")
        return os.fsdecode(path) if writes and not isinstance(path, int) else None
    if name in CHANGES:
        return os.fsdecode(arguments[1 if name == "os.rename" else 0])
    return None


def size(folder: Path) -> int:
    """What a folder takes on a tmpfs: its files in whole pages."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += -(-os.lstat(Path(place, name)).st_size // PAGE) * PAGE
    return total


@dataclass(frozen=True)
class Disk:
    """A file system whose room a file takes."""

    filler: Path

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes."""
        left = os.statvfs(self.filler.parent)
        with self.filler.open("ab") as file, contextlib.suppress(OSError):
            file.write(bytes(max(0, left.f_bavail * left.f_frsize - free)))

    def clear(self) -> None:
        """Make room."""
        self.filler.unlink()


@contextlib.contextmanager
def small_disk(place: Path, free: int) -> Iterator[Disk]:
    """A tmpfs at `place` with so many bytes left. OSError if it cannot be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={64 * 2**20}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise OSError("no tmpfs can be mounted here")
    try:
        disk = Disk(place / "filler")
        disk.fill(free)
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
