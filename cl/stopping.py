"""Ctrl-C and SIGTERM: noted, and obeyed when the run can be left without losing anything."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from cl.errors import PalimpsestError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(PalimpsestError):
    """The run was asked to stop, and did so after a checkpoint. status: for the shell, 128 + the signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


class StopRequest:
    """While it is entered, the first signal is noted in `number` (0: none); a second acts as always."""

    def __init__(self) -> None:
        self.number = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()
        message = "Stopping at the next checkpoint. Again to stop at once, with the last one."
        print(f"\n{message}", file=sys.stderr, flush=True)

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
