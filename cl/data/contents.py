"""A hash of what is in the images of a stream: quick where they are stored, a sample where they are not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from weakref import WeakValueDictionary

import numpy as np

from cl.data.arrays import Array, ArrayDataset
from cl.data.computed import ComputedImages

WHOLE_BYTES = 512e6
"""So much of the stored images is looked at, pixel for pixel; of what is more, a sample."""

SAMPLE = 512
"""How many images of a stream are looked at where not all are; from each data set at least one."""

WORDS, PIECE = 4096, 1 << 22
KEYS = np.frombuffer(np.random.RandomState(0).bytes(8 * WORDS), "<u8")


class Contents:
    """Takes in data sets one after the other; the same images give the same hash.

    Stored images are looked at once for all data sets that share them. Where images are computed, what they
    are computed from is looked at (`ComputedImages.source`): how it is done is told by their key.
    sets: how many data sets there will be, among which the sample is divided.
    """

    def __init__(self, sets: int) -> None:
        self.found = hashlib.sha256()
        self.room = WHOLE_BYTES
        self.known: WeakValueDictionary[int, Array] = WeakValueDictionary()
        self.sample = max(1, SAMPLE // max(1, sets))

    def add(self, data: ArrayDataset) -> None:
        """Take in a data set."""
        if not len(data):
            return
        images = data.images
        while isinstance(images, ComputedImages) and isinstance(
            images.source, np.ndarray | ComputedImages
        ):
            images = images.source
        if isinstance(images, ComputedImages):
            rows = self._sample(data)
            source = images.source
            self._pieces([images[rows].tobytes()] if source is None else source(rows))
        elif self.known.get(id(images)) is not images:
            self._stored(images, data)

    def names(self, names: Iterable[str]) -> None:
        """Take in the names of classes."""
        self._pieces(name.encode(errors="surrogatepass") for name in names)

    def hexdigest(self) -> str:
        """The hash of all that was taken in."""
        return self.found.hexdigest()[:16]

    def _stored(self, images: Array, data: ArrayDataset) -> None:
        if images.nbytes <= self.room:
            self.room -= images.nbytes
            self.known[id(images)] = images
            self.found.update(hash_pixels(images))
        else:
            self.found.update(hash_pixels(np.asarray(images[self._sample(data)])))

    def _sample(self, data: ArrayDataset) -> Array:
        """Some rows, always the same, ascending."""
        drawn = np.random.RandomState(0).randint(0, len(data), self.sample)
        rows: Array = np.unique(data.rows[drawn])
        return rows

    def _pieces(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.found.update(len(piece).to_bytes(8, "little"))
            self.found.update(piece)


def hash_pixels(images: Array) -> bytes:
    """A hash of uint8 N × …, by multilinear hashing: half the time of SHA-256 alone.

    Each row of 4,096 words of 32 bits becomes Σ word · key (mod 2^64), with random 64-bit keys. Two rows that
    differ give the same sum with a probability of 2^-40 at the most.
    """
    found = hashlib.sha256(repr(images.shape).encode())
    count = max(1, PIECE // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), count):
        content = np.ascontiguousarray(images[start : start + count]).reshape(-1)
        if rest := content.size % (4 * WORDS):
            content = np.pad(content, (0, 4 * WORDS - rest))
        rows = content.view("<u4").reshape(-1, WORDS).astype(np.uint64)
        found.update((rows @ KEYS).astype("<u8").tobytes())
    return found.digest()


def contents(parts: Iterable[Sequence[ArrayDataset]], names: Iterable[str]) -> str:
    """The hash, 16 hexadecimal digits, of all images of all data sets and of the names of their classes."""
    parts = list(parts)
    found = Contents(sum(len(sets) for sets in parts))
    for sets in parts:
        for data in sets:
            found.add(data)
    found.names(names)
    return found.hexdigest()
