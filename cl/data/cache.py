"""Features of a frozen backbone, kept by the content of the image, in memory and on disk."""

from __future__ import annotations

import hashlib
import sys
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from cl.config import CacheConfig
from cl.data import cache_files
from cl.data.arrays import Array
from cl.data.loading import Images
from cl.errors import WeightsError

DIGEST_BYTES = 16

FEWEST = 8
"""So many images of a batch are computed at the least; again if need be."""

KEPT_TABLES = 2
"""For how many keys features are kept in memory: when weights have changed, old features are of no use."""


def create_cache(config: CacheConfig) -> FeatureCache | None:
    """The feature cache that the configuration describes."""
    if not config.memory_gb:
        return None
    folder = None if config.dir is None else Path(config.dir)
    return FeatureCache(config.memory_gb * 1e9, folder, config.dir_gb * 1e9)


class FeatureCache:
    """What a frozen network gave for an image is not computed again, whatever data set the image is in.

    An entry's key is the hash of the image's uint8 pixels, beside `key`, which the caller makes from all
    else that the features depend on. memory_bytes: what the features may take in memory; when it is full,
    nothing is added. folder: where they are kept for later runs as well, None for nowhere; several
    processes may share it. folder_bytes: when the folder is larger, its oldest files are deleted. A file
    that is not as it was written is deleted too, with a warning, and its features are computed again.

    computed, reused: how many images' features were computed, and how many were known.
    """

    def __init__(
        self, memory_bytes: float, folder: Path | None = None, folder_bytes: float = 0
    ) -> None:
        self.memory_bytes, self.folder, self.folder_bytes = memory_bytes, folder, folder_bytes
        self.tables: dict[str, Table] = {}
        self.digests = Digests()
        self.computed = self.reused = 0

    def __deepcopy__(self, memo: Any) -> FeatureCache:
        return self  # a copy of a model has the same features

    def features(self, key: str, images: Images, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(images)`, B × …, with each row computed once for this key."""

        def some(which: Array) -> Tensor:
            whole = np.array_equal(which, np.arange(len(images)))
            return compute(images.tensor if whole else images.part(which))

        return self.lookup(key, self.digests.of(images), some, images.on)

    def lookup(
        self, key: str, names: list[bytes], compute: Callable[[Array], Tensor], on: torch.device
    ) -> Tensor:
        """A row for each name, in this order, on a device; `compute(which)` gives those at some positions."""
        table = self._table(key, on)
        slots = np.array([table.slots.get(name, -1) for name in names])
        missing = np.flatnonzero(slots < 0)
        self.computed += len(missing)
        self.reused += len(slots) - len(missing)
        if not len(missing):
            return table.rows(slots)
        # Never a few out of a larger batch: some kernels round a product of few rows in another way.
        enough = max(len(missing), min(len(slots), FEWEST))
        computed = compute(np.resize(missing, enough))[: len(missing)]
        table.add([names[i] for i in missing], computed, self.memory_bytes - self.memory)
        if len(missing) == len(slots):
            return computed
        result = computed.new_empty(len(slots), *computed.shape[1:])
        result[torch.from_numpy(missing)] = computed
        known = np.flatnonzero(slots >= 0)
        result[torch.from_numpy(known)] = table.rows(slots[known])
        return result

    @property
    def memory(self) -> int:
        """The bytes that the features take in memory."""
        return sum(table.size for table in self.tables.values())

    def flush(self) -> None:
        """Write what is new to the folder, and delete the oldest files if it has become too large."""
        if self.folder is None:
            return
        try:
            for key, table in self.tables.items():
                table.write(self.folder, key)
            cache_files.shrink(self.folder, self.folder_bytes)
        except (OSError, SafetensorError) as error:  # no room, or no right to write
            print(f"cache.dir={self.folder} is not used any more: {error}", file=sys.stderr)
            self.folder = None

    def _table(self, key: str, on: torch.device) -> Table:
        if key not in self.tables:
            self.flush()
            for old in list(self.tables)[: 1 - KEPT_TABLES]:
                del self.tables[old]
            self.tables[key] = Table()
            if self.folder is not None:
                self.tables[key].read(self.folder, key, self.memory_bytes - self.memory, on)
        return self.tables[key]


class Table:
    """Features by digest; rows are appended."""

    def __init__(self) -> None:
        self.slots: dict[bytes, int] = {}
        self.store = torch.empty(0)
        self.written = 0

    @property
    def size(self) -> int:
        """What the features take."""
        return len(self.slots) * self.store[:1].nbytes

    def rows(self, slots: Array) -> Tensor:
        """The features in these slots."""
        return self.store[torch.from_numpy(slots).to(self.store.device)]

    def add(self, digests: list[bytes], features: Tensor, room: float) -> None:
        """Keep the features if they fit into so many bytes; a digest may come twice."""
        new = {digest: i for i, digest in enumerate(digests) if digest not in self.slots}
        if features[: len(new)].nbytes > room:
            return
        count = len(self.slots)
        # Rows that were made under inference mode could not be written to later.
        with torch.inference_mode(False), torch.no_grad():
            self._reserve(count + len(new), features)
            self.store[count : count + len(new)] = features[list(new.values())]
        self.slots |= {digest: count + i for i, digest in enumerate(new)}

    def write(self, folder: Path, key: str) -> None:
        """What was added since the last time, as one sealed file under a name of its own."""
        digests = list(self.slots)[self.written :]
        if not digests:
            return
        features = self.store[self.written : len(self.slots)]
        (folder / key).mkdir(parents=True, exist_ok=True)
        file = folder / key / f"{uuid.uuid4().hex}.safetensors"
        cache_files.save(key, b"".join(digests), features, file)
        self.written = len(self.slots)

    def read(self, folder: Path, key: str, room: float, on: torch.device) -> None:
        """Take to a device what any process has written for this key; what is damaged is deleted."""
        damaged = 0
        for file in sorted((folder / key).glob("*.safetensors")):
            try:
                digests, features = cache_files.load(key, file)
            except WeightsError:
                damaged += cache_files.delete(file)
            else:
                self._join(digests, features, room, on)
        if damaged:
            print(
                f"cache.dir={folder}: {damaged} damaged files (or files without checksum, of version 0.1) "
                "are deleted; their features are computed again.",
                file=sys.stderr,
            )
        self.written = len(self.slots)

    def _join(self, digests: bytes, features: Tensor, room: float, on: torch.device) -> None:
        """Add what a file holds, but for rows that are not finite or not of the kind of those here."""
        like = self.store if self.slots else features
        if features.dtype == like.dtype and features.shape[1:] == like.shape[1:]:
            # A sum is not finite if one of its numbers is not, and is faster than to look at each.
            sums = features.flatten(1).sum(1, dtype=torch.float32)
            rows = sums.isfinite().nonzero().flatten()
            names = [digests[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] for i in rows.tolist()]
            self.add(names, features[rows].to(on), room - self.size)

    def _reserve(self, count: int, like: Tensor) -> None:
        if count > len(self.store):
            larger = like.new_empty(max(count, 2 * len(self.store)), *like.shape[1:])
            if self.slots:
                larger[: len(self.slots)] = self.store[: len(self.slots)]
            self.store = larger


class Digests:
    """The hashes of images, each taken once for as long as its array lives."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Array, Array]] = {}

    def of(self, images: Images) -> list[bytes]:
        """One hash per image of the batch."""
        places = images.data.origins(images.positions)
        found: list[bytes] = []
        for array, rows in places:
            values, have = self._of_array(array)
            lacking = np.flatnonzero(~have[rows])
            if len(lacking):
                start = len(found)
                for i in lacking:
                    values[rows[i]] = digest(images.pixels[start + i])
                have[rows] = True
            found += values[rows].tolist()
        return found

    def _of_array(self, array: Array) -> tuple[Array, Array]:
        if id(array) not in self.known:
            values = np.zeros(len(array), dtype=f"V{DIGEST_BYTES}")
            self.known[id(array)] = (values, np.zeros(len(array), dtype=bool))
            weakref.finalize(array, self.known.pop, id(array), None)
        return self.known[id(array)]


def digest(pixels: Array) -> bytes:
    """The hash of one image, uint8 H × W × C."""
    found = hashlib.blake2b(str(pixels.shape).encode(), digest_size=DIGEST_BYTES)
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()
