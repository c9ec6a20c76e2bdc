"""Standard output and errors that outlive whoever reads them."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class LastingFile(io.FileIO):
    """When it cannot be written any more (a closed pipe or terminal), what is written goes nowhere."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for child processes and libraries as well
            os.close(nowhere)
            return super().write(data)


def outlive_readers() -> None:
    """Let `python run.py … | head -1` train to the end: what nobody reads stops nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)  # there is no buffer with `python -u`
        if type(raw) is not io.FileIO:
            continue  # replaced already, by us or by somebody who catches what is written
        lasting: Any = LastingFile(raw.fileno(), "w", closefd=False)
        replaced = io.TextIOWrapper(
            lasting if buffer is raw else io.BufferedWriter(lasting),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, replaced)
