"""The files of the feature cache: sealed when they are written, checked when they are read, and deleted."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cl.checkpoint import load_tensors, save_tensors
from cl.errors import WeightsError

OWN = re.compile(r"[^/]+/[0-9a-f]{32}\.safetensors(\.partial)?")
"""What the cache calls its files, as seen from its folder."""

STALE = 3600.0
"""A file that was begun so many seconds ago and is not complete is of a process that was killed."""


def save(key: str, digests: bytes, features: Tensor, file: Path) -> None:
    """Write the digests of some rows, one after the other, and their features, rows × …, with a seal."""
    content = {"digests": _tensor(digests), "features": features.cpu()}
    save_tensors({**content, "seal": _tensor(_seal(key, content))}, file)


def load(key: str, file: Path) -> tuple[bytes, Tensor]:
    """What was saved under this key; WeightsError unless the file is as it was written."""
    content = load_tensors(file)
    if content.keys() != {"digests", "features", "seal"}:
        raise WeightsError(f"{file} has no seal.")
    if bytes(_view(content["seal"])) != _seal(key, content):
        raise WeightsError(f"{file} is damaged.")
    return bytes(_view(content["digests"])), content["features"]


def _seal(key: str, content: Mapping[str, Tensor]) -> bytes:
    """The hash of digests and features, their types and shapes, and the key."""
    found = hashlib.blake2b(key.encode(), digest_size=32)
    for name in ("digests", "features"):
        tensor = content[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_view(tensor))
    return found.digest()


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _view(tensor: Tensor) -> memoryview:
    """The bytes of a tensor of any type."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def delete(file: Path) -> bool:
    """Delete a file; False if another process was faster. It stays where one may not delete."""
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


def shrink(folder: Path, limit: float) -> None:
    """Delete what killed processes began, and the oldest features until `folder` takes `limit` bytes.

    All that lies below the folder is counted; what does not have a name of the cache's is not deleted.
    """
    total, kept = 0, []
    for written, size, file in _sizes(folder):
        own = OWN.fullmatch(file.relative_to(folder).as_posix()) is not None
        if own and file.suffix == ".partial" and written < time.time() - STALE:
            delete(file)
            continue
        total += size
        if own and file.suffix == ".safetensors":
            kept.append((written, size, file))
    for _, size, file in sorted(kept):  # the oldest first
        if total <= limit:
            break
        delete(file)
        total -= size


def _sizes(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file in and below the folder was written, and how large it is."""
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            try:
                status = file.lstat()
            except FileNotFoundError:  # another process may have deleted it
                continue
            yield status.st_mtime, status.st_size, file
