"""Where a case happens: a folder of its own, limits of time and memory, and what is printed caught."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import resource
import signal
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import FrameType
from unittest.mock import patch

from benchmarks.fuzz.structure import SECRET

BYTES = 4 * 2**30
"""What a case may allocate beyond what the process has."""


class HangError(BaseException):
    """The time is over; not an Exception, which the program might catch."""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the cases."""
    os.environ[SECRET] = f"secret{random.randrange(10**12)}"
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory()) as folder:
        yield Path(folder)
    del os.environ[SECRET]


def memory() -> Path | None:
    """A folder in memory, if there is one: nothing here need outlive the process."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


@contextlib.contextmanager
def at(folder: Path) -> Iterator[None]:
    """With `folder` as the current folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """What is printed is kept; the warnings of libraries are not counted as a word."""
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield said


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Durations and random names are the same every time, so that a case can be replayed."""
    chance, ticks = Random(0), itertools.count()
    with (
        patch("time.perf_counter", lambda: next(ticks) / 64),
        patch("uuid.uuid4", lambda: uuid.UUID(int=chance.getrandbits(128))),
    ):
        yield


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """HangError after so many seconds; MemoryError beyond `BYTES`."""

    def over(number: int, frame: FrameType | None) -> None:
        raise HangError

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again, should a clean-up swallow the first
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
