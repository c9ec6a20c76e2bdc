"""What several processes may make at one place: one of them does, the others wait and find it done."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

PATIENCE = 2.0
"""After so many seconds a process says that it waits for another one."""


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """No other process is in here for this `place`; the lock goes with the process, however it ends.

    An OSError where nothing can be written beside `place`.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        print(f"Another process is at work on {place}: waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def aside(place: Path) -> Path:
    """A name beside `place` that no other process has: what is complete there is renamed to `place`."""
    return place.with_name(f"{place.name}.{uuid4().hex}.partial")


def clear(place: Path) -> None:
    """Delete what killed processes left aside of `place`. Only where one is `alone`."""
    left = re.compile(re.escape(place.name) + r"\.([0-9a-f]{32}\.)?partial")
    for path in [path for path in place.parent.iterdir() if left.fullmatch(path.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
