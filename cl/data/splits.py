"""Which images are in which experience: as arrays, as a file beside a run, and as a hash."""

from __future__ import annotations

import hashlib
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cl.checkpoint import replacing
from cl.data.arrays import Array, ArrayDataset
from cl.data.computed import key_of
from cl.errors import DataError

Parts = dict[str, Sequence[ArrayDataset]]
"""The data sets of all experiences, by "train" and "test"."""
Column = tuple[str, int, Iterator[Array]]
"""Its name, how many int64 numbers it has, and these piece by piece."""

DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What reading a broken `.npz` file raises."""

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


def save(parts: Parts, file: Path, contents: str) -> None:
    """Write the columns, the fingerprint and the hash of the contents as a `.npz` file.

    A DataError if another split is there, or one of other images; an older file has no hash of them.
    """
    own = {"fingerprint": fingerprint(parts), "contents": contents}
    if file.exists():
        _compare(own, _read_texts(file), file)
        return
    with replacing(file) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as out:
        for name, text in own.items():
            with out.open(f"{name}.npy", "w") as entry:
                np.save(entry, np.array(text))
        for name, count, pieces in columns(parts):
            with out.open(f"{name}.npy", "w", force_zip64=True) as entry:
                header = {"descr": "<i8", "fortran_order": False, "shape": (count,)}
                np.lib.format.write_array_header_1_0(entry, header)
                for piece in pieces:
                    entry.write(np.ascontiguousarray(piece, dtype="<i8").tobytes())


def _compare(own: dict[str, str], stored: dict[str, str], file: Path) -> None:
    if stored["fingerprint"] != own["fingerprint"]:
        raise DataError(
            f"{file}: the run began with other images in other experiences "
            f"({stored['fingerprint']}, now {own['fingerprint']}). Has the data set changed?"
        )
    if stored.get("contents", own["contents"]) != own["contents"]:
        raise DataError(
            f"{file}: the run began with other pixels or other class names ({stored['contents']}, "
            f"now {own['contents']}). Put the data set back as it was, or begin a new run."
        )


def _read_texts(file: Path) -> dict[str, str]:
    """The texts in a file that `save` wrote; DataError if it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {
                key: str(stored[key])
                for key in ("fingerprint", "contents")
                if key == "fingerprint" or key in stored.files
            }
    except (*DAMAGE, TypeError) as error:  # a lone array is read as such
        raise DataError(
            f"{file} is damaged ({error}), so that nobody knows whether the images are still the same. "
            "Begin a new run."
        ) from None
