"""Which images are in which experience: as arrays, as a file beside a run, and as a hash."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cl.data.arrays import Array, ArrayDataset
from cl.data.computed import key_of
from cl.errors import DataError

Parts = dict[str, Sequence[ArrayDataset]]
"""The data sets of all experiences, by "train" and "test"."""
Column = tuple[str, int, Iterator[Array]]
"""Its name, how many int64 numbers it has, and these piece by piece."""

PIECES: dict[str, Callable[[ArrayDataset], Array]] = {
    "rows": lambda data: data.rows,
    "labels": lambda data: data.targets,
    "lengths": lambda data: np.array([len(data)], dtype=np.int64),
}


def columns(parts: Parts) -> Iterator[Column]:
    """Rows, labels and lengths of all experiences, in order. No more than one experience is in memory."""
    for part, sets in parts.items():
        images = sum(len(data) for data in sets)
        for name, piece in PIECES.items():
            count = len(sets) if name == "lengths" else images
            yield f"{part}_{name}", count, map(piece, sets)


def arrays(parts: Parts) -> dict[str, Array]:
    """The columns as arrays."""
    return {name: np.concatenate(list(pieces)) for name, _, pieces in columns(parts)}


def fingerprint(parts: Parts) -> str:
    """A hash of the split: the same for the same images in the same experiences."""
    digest = hashlib.sha256()
    for sets in parts.values():
        for data in sets:
            digest.update(np.ascontiguousarray(data.rows).tobytes())
            digest.update(np.ascontiguousarray(data.targets).tobytes())
            digest.update(key_of(data.images).encode())
    return digest.hexdigest()[:16]


def save(parts: Parts, file: Path) -> None:
    """Write the columns and the fingerprint as a `.npz` file; a DataError if another split is there."""
    own = fingerprint(parts)
    if file.exists():
        with np.load(file, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != own:
                raise DataError(
                    f"{file}: the run began with other images in other experiences "
                    f"({stored['fingerprint']}, now {own}). Has the data set changed?"
                )
        return
    partial = file.with_name(f"{file.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as out:
        with out.open("fingerprint.npy", "w") as entry:
            np.save(entry, np.array(own))
        for name, count, pieces in columns(parts):
            with out.open(f"{name}.npy", "w", force_zip64=True) as entry:
                header = {"descr": "<i8", "fortran_order": False, "shape": (count,)}
                np.lib.format.write_array_header_1_0(entry, header)
                for piece in pieces:
                    entry.write(np.ascontiguousarray(piece, dtype="<i8").tobytes())
    partial.rename(file)
