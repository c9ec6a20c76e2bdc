"""What the machine lacks, said so that one knows what to type."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cl.config import TrainerConfig
from cl.errors import ResourceError


@contextmanager
def resources_explained(folder: Path, trainer: TrainerConfig, image_size: int) -> Iterator[None]:
    """Turn "out of memory" and "disk full" into a ResourceError that says what to try."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        again = f"The checkpoints are as they were; to go on: python run.py resume={folder}"
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
        if is_disk_full(error):
            raise ResourceError(f"The disk with {folder} is full. Make room. {again}") from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the accelerator or in main memory."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def is_disk_full(error: BaseException) -> bool:
    """Whether a file could not be written for want of space (safetensors raises an error of its own)."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left on device" in str(error)
