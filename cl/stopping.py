"""Ctrl-C and SIGTERM: noted, and obeyed when the run can be left without losing anything."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from cl.errors import PalimpsestError

WORDS = ("null", "true", "false", "nan", "inf")
"""What Hydra takes for something else than text."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(PalimpsestError):
    """The run was asked to stop, and did. status: for the shell, 128 + the signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


class StopRequest:
    """While it is entered, the first signal is noted in `number` (0: none); a second acts as always.

    It may be entered again inside itself; the handlers stay until it is left for the last time. `number`
    stays after that. notice: what is said when the signal comes.
    """

    def __init__(self) -> None:
        self.notice = "Stopping at the next checkpoint. Again to stop at once, with the last one."
        self.number = 0
        self.depth = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self.depth += 1
        main = threading.current_thread() is threading.main_thread()  # others may not set handlers
        if main and self.depth == 1:
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.depth -= 1
        if self.depth == 0:
            self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()
        print(f"\n{self.notice}", file=sys.stderr, flush=True)

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


def resume_command(folder: Path) -> str:
    """The command that goes on with the run in `folder`, quoted for the shell and for Hydra."""
    return f"python run.py {shlex.quote(f'resume={quoted(str(folder))}')}"


def quoted(text: str) -> str:
    """A text as a value of the command line: in quotes, unless Hydra reads it as it is without them."""
    if re.fullmatch(r"[A-Za-z_./][\w./+-]*", text, re.ASCII) and text.lower() not in WORDS:
        return text
    # Backslashes count only before a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text) + "'"
