"""How a file is damaged: its bytes, whatever they mean, or the file as a whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

BytesMutation = Callable[[bytes, Random], bytes]
FileMutation = Callable[[Path, Random], None]


def flip_bits(content: bytes, chance: Random) -> bytes:
    """One bit, or a few."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def flip_many(content: bytes, chance: Random) -> bytes:
    """About one byte in fifty becomes another one."""
    changed = bytearray(content)
    for place in chance.sample(range(len(changed)), 1 + len(changed) // 50):
        changed[place] = chance.randrange(256)
    return bytes(changed)


def truncate(content: bytes, chance: Random) -> bytes:
    """The end is missing."""
    return content[: chance.randrange(len(content))]


def behead(content: bytes, chance: Random) -> bytes:
    """The beginning is missing."""
    return content[chance.randrange(1, len(content) + 1) :]


def cut_out(content: bytes, chance: Random) -> bytes:
    """A range in the middle is missing."""
    start, end = _range(content, chance)
    return content[:start] + content[end:]


def duplicate(content: bytes, chance: Random) -> bytes:
    """A block comes twice."""
    start, end = _range(content, chance)
    return content[:end] + content[start:]


def swap(content: bytes, chance: Random) -> bytes:
    """Two neighbouring blocks change places."""
    start, end = _range(content, chance)
    middle = (start + end + 1) // 2
    return content[:start] + content[middle:end] + content[start:middle] + content[end:]


def blank(content: bytes, chance: Random) -> bytes:
    """A range is zeros, as after a crash of the file system."""
    start, end = _range(content, chance)
    return content[:start] + bytes(end - start) + content[end:]


def insert(content: bytes, chance: Random) -> bytes:
    """A few bytes that do not belong there."""
    place = chance.randrange(len(content) + 1)
    return content[:place] + chance.randbytes(chance.choice((1, 2, 40))) + content[place:]


def append(content: bytes, chance: Random) -> bytes:
    """Something after the end."""
    return content + chance.choice((b"\0", b"\n", content, chance.randbytes(100)))


def empty(content: bytes, chance: Random) -> bytes:
    """Nothing is left."""
    return b""


def noise(content: bytes, chance: Random) -> bytes:
    """Another content of the same length."""
    return chance.randbytes(len(content))


BYTES: tuple[BytesMutation, ...] = (
    *(flip_bits, flip_bits, flip_many, truncate, behead, cut_out),
    *(duplicate, swap, blank, insert, append, empty, noise),
)


def missing(file: Path, chance: Random) -> None:
    """The file is gone."""
    file.unlink()


def folder(file: Path, chance: Random) -> None:
    """A folder of this name."""
    file.unlink()
    file.mkdir()


def fifo(file: Path, chance: Random) -> None:
    """A pipe: who opens it waits for ever."""
    file.unlink()
    os.mkfifo(file)


def device(file: Path, chance: Random) -> None:
    """A link to a device that never ends."""
    file.unlink()
    file.symlink_to("/dev/zero")


def nowhere(file: Path, chance: Random) -> None:
    """A link that leads nowhere."""
    file.unlink()
    file.symlink_to("gone")


def enormous(file: Path, chance: Random) -> None:
    """Eight gigabytes, of which nothing is on the disk."""
    os.truncate(file, 8 * 2**30)


def neighbour(file: Path, chance: Random) -> None:
    """The content of another file beside it."""
    others = [f for f in sorted(file.parent.iterdir()) if f.is_file() and f != file]
    if others:
        shutil.copyfile(chance.choice(others), file)
    else:
        file.write_bytes(b"")


WHOLE: tuple[FileMutation, ...] = (missing, folder, fifo, device, nowhere, enormous, neighbour)


def _range(content: bytes, chance: Random) -> tuple[int, int]:
    start = chance.randrange(len(content))
    longest = min(len(content) - start, chance.choice((1, 8, 100, len(content))))
    return start, start + chance.randint(1, longest)
