"""What the machine lacks or refuses, said so that one knows what to type."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cl.config import TrainerConfig
from cl.errors import PalimpsestError, ResourceError
from cl.parallel import LostProcessError, is_lost_process

FULL = "The disk with {place} is full. Make room."
FORBIDDEN = "{place}: {reason}. Give yourself the right to write there, or take another folder."
FILES = "Too many files are open ({place}). Allow more: ulimit -n 4096."
REFUSALS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "{place}: a file would become larger than is allowed there. Raise the limit "
    "(ulimit -f unlimited), or take another disk: output=…",
    errno.EACCES: FORBIDDEN,
    errno.EPERM: FORBIDDEN,
    errno.EROFS: FORBIDDEN,
    errno.EISDIR: "{place}: a folder is in the place of a file. Move it away.",
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.EIO: "{place}: the disk does not work as it should ({reason}).",
    errno.ESTALE: "{place}: the disk is no longer there ({reason}).",
}
"""What the system may refuse; the place is the file where it is known, else the run's folder."""


@contextmanager
def resources_explained(
    folder: Path, trainer: TrainerConfig, image_size: int, again: str
) -> Iterator[None]:
    """Turn what the machine lacks or refuses, and the loss of another process, into an error with advice.

    again: a sentence that says how to go on.
    """
    try:
        yield
    except PalimpsestError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            smaller = [f"trainer.batch_size={max(1, trainer.batch_size // 2)}"]
            smaller.append(
                f"trainer.evaluation_batch_size={max(1, trainer.evaluation_batch_size // 2)}"
            )
            smaller.append(f"backbone.image_size={max(32, image_size // 2)}")
            raise ResourceError(
                f"Out of memory with trainer.batch_size={trainer.batch_size}, "
                f"trainer.evaluation_batch_size={trainer.evaluation_batch_size} and images of "
                f"{image_size} pixels. Try a new run with {', or '.join(smaller)}."
            ) from error
        if is_lost_process(error):
            raise LostProcessError(
                f"Another process of this run is gone, or did not answer in time. {again}"
            ) from error
        refused = refusal(error, folder)
        if refused is None:
            raise
        raise ResourceError(f"{refused} {again}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the accelerator or in main memory."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def refusal(error: BaseException, folder: Path) -> str | None:
    """What the system refused, and what to do about it; None if the error is of another kind."""
    number = _number(error)
    if number not in REFUSALS:
        return None
    place = getattr(error, "filename", None) or folder
    return REFUSALS[number].format(place=place, reason=os.strerror(number))


def _number(error: BaseException) -> int | None:
    """The system's number of an error; libraries in other languages have it in their text."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None
