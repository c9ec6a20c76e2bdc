"""Damaged data files, seeded: each is read, or ends in a sentence with the file's name; quickly."""

from __future__ import annotations

import io
import json
import os
import random
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl.data.decoding import decode
from cl.errors import DataError
from streams.datasets.arrays import array_folder
from streams.own import arrays

IMAGES = np.random.RandomState(0).randint(0, 256, (12, 6, 6, 3), np.uint8)
LABELS = np.arange(12) % 3


def picture(kind: str, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.tile(IMAGES[0], (6, 6, 1))).convert(mode).save(out, kind)
    return out.getvalue()


def npz(save: Callable[..., None]) -> bytes:
    out = io.BytesIO()
    save(out, images=IMAGES, labels=LABELS)
    return out.getvalue()


def npy(content: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, content)
    return out.getvalue()


FILES = {
    "stored.npz": npz(np.savez),
    "packed.npz": npz(np.savez_compressed),
    "images.npy": npy(IMAGES),
    "labels.npy": npy(LABELS),
    "classes.json": json.dumps(["ant", "bee", "café"]).encode(),
    "rgb.png": picture("PNG"),
    "bits.png": picture("PNG", "1"),
    "palette.png": picture("PNG", "P"),
    "deep.png": picture("PNG", "I;16"),
    "x.tif": picture("TIFF"),
    "x.webp": picture("WEBP"),
    "x.gif": picture("GIF"),
    "x.jpg": picture("JPEG"),
    "x.bmp": picture("BMP"),
    "x.ppm": picture("PPM"),
    "x.avif": picture("AVIF"),
}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut out, doubled or put in, more often at the beginning, where the headers are."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        reach = len(found) if chance.random() < 0.5 else min(len(found), 160)
        place = chance.randrange(reach + 1)
        end = place + chance.choice((1, 1, 4, 40))
        change = chance.randrange(6)
        if change == 0:
            del found[place:]
        elif change == 1:
            del found[place:end]
        elif change == 2:
            found[place:place] = found[place:end] * chance.choice((1, 50))
        elif change == 3:
            found[place:end] = bytes(chance.choice((0, 9, 255)) for _ in found[place:end])
        elif change == 4:
            found[place:end] = chance.choice(
                (b"9" * 18, b"-1", b"[" * 9000, b"\xff\xfe", b"\\u0000")
            )
        else:
            found[place:end] = bytes(chance.randrange(256) for _ in found[place:end])
    return bytes(found)


def read(name: str, content: bytes, folder: Path) -> None:
    """As a stream would."""
    (folder / "file").with_name(name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.endswith(".npz"):
            np.asarray(arrays(str(folder / name), tasks=1).train[0].images)
        elif name == "images.npy":
            np.save(folder / "own.npy", LABELS)
            np.asarray(arrays(str(folder / name), str(folder / "own.npy"), tasks=1).train[0].images)
        elif name == "labels.npy":
            np.save(folder / "own.npy", IMAGES)
            arrays(str(folder / "own.npy"), str(folder / name), tasks=1)
        elif name == "classes.json":
            np.save(folder / "train_images.npy", IMAGES)
            np.save(folder / "train_labels.npy", LABELS)
            array_folder("own", folder)
        else:
            decode(folder / name, 8)


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_read(tmp_path: Path, name: str) -> None:
    read(name, FILES[name], tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_end_in_a_sentence(tmp_path: Path, name: str) -> None:
    for seed in range(8):
        start = time.monotonic()
        with suppress(DataError):  # anything else is a traceback
            read(name, mutated(FILES[name], random.Random(f"{name} {seed}")), tmp_path)
        assert time.monotonic() - start < 10, f"seed {seed}"


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (
            "{'descr': '|u1', 'fortran_order': False, 'shape': (999999999999, 9, 9, 3)}",
            "cannot be read",
        ),
        (
            "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999, 3)}",
            "cannot be",
        ),
        (
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 9, 9, 3)}",
            "cannot be|must be uint8",
        ),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "cannot be read"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "(" * 300 + "1", "cannot be read"),
        ("{'descr': '|u1', 'fortran_order': ", "cannot be read"),
        ("\x00" * 40, "cannot be read"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: str, told: str) -> None:
    text = header.encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)
    (tmp_path / "x.npy").write_bytes(content)
    np.save(tmp_path / "y.npy", LABELS)
    with pytest.raises(DataError, match=rf"x.*{told}"):
        arrays(str(tmp_path / "x.npy"), str(tmp_path / "y.npy"))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as out:
        out.writestr("images.npy", content)
        out.writestr("labels.npy", npy(LABELS))
    with pytest.raises(DataError, match=rf"x.*{told}"):
        arrays(str(tmp_path / "x.npz"))


@pytest.mark.parametrize(
    "content", ["{}", "3", '["a", 1.5]', '["a", ["b"]]', "[" * 99999, "[]", ""]
)
def test_names_of_classes_that_are_none(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"classes\.json|A label is"):
        read("classes.json", content.encode(), tmp_path)


def test_arrays_in_a_pipe_do_not_hang(tmp_path: Path) -> None:
    for name in ("x.npz", "x.npy"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="no regular file"):
            arrays(str(tmp_path / name), labels=str(tmp_path / name))


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
def test_arrays_of_16_bits_are_scaled_when_they_are_read(tmp_path: Path, kind: str) -> None:
    deep = (IMAGES.astype(np.uint16) * 257).astype(kind)
    np.savez(tmp_path / "deep.npz", images=deep, labels=LABELS)
    np.savez(tmp_path / "bytes.npz", images=IMAGES, labels=LABELS)
    one, other = (arrays(str(tmp_path / f"{name}.npz"), tasks=1) for name in ("deep", "bytes"))
    assert np.array_equal(np.asarray(one.train[0].images), other.train[0].images)
    assert one.train[0].images.dtype == np.uint8
    np.savez(tmp_path / "grey.npz", images=deep[..., 0], labels=LABELS)
    grey = arrays(str(tmp_path / "grey.npz"), tasks=1).train[0]
    assert np.array_equal(grey.take(np.arange(2))[0][..., 0], IMAGES[grey.rows[:2], ..., 0])


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint32, bool, np.float32])
def test_arrays_of_other_types_are_refused(tmp_path: Path, kind: type) -> None:
    np.savez(tmp_path / "x.npz", images=IMAGES.astype(kind), labels=LABELS)
    with pytest.raises(DataError, match=r"images (must be uint8|are float)"):
        arrays(str(tmp_path / "x.npz"))
