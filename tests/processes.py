"""Several light processes at once, one that is killed, and one without special rights."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FORK = multiprocessing.get_context("fork")  # what is imported need not be imported again


def at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    """What `work` gives in so many processes that begin together; none of them may fail."""
    gate, answers = FORK.Barrier(count), FORK.SimpleQueue()

    def run() -> None:
        gate.wait()
        answers.put(work())

    processes = [FORK.Process(target=run) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * count
    return [answers.get() for _ in range(count)]


def killed(work: Callable[[], Any]) -> None:
    """Let a process do `work`, which calls `die` on the way."""
    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def die(*arguments: object, **more: object) -> None:
    """The end of this process, as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """In here the rights of folders and files bind this process, even if root started it."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)
