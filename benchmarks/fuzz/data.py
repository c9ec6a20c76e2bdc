"""Data of one's own: arrays, image files in folders, archives of them."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.fuzz.harness import Kind
from benchmarks.toys import pixels
from cl.stream import Stream
from streams.datasets.arrays import array_folder
from streams.own import arrays, folder

FORMATS = ("png", "jpeg", "webp", "gif", "tif", "bmp", "ppm")


def content(stream: Stream) -> Any:
    """Everything that is in a stream: names, labels, pixels."""
    parts = [part.take(np.arange(len(part))) for part in (*stream.train, *stream.test)]
    return (
        tuple(stream.class_names),
        [labels.tolist() for _, labels in parts],
        [images.shape for images, _ in parts],
        b"".join(np.ascontiguousarray(images).tobytes() for images, _ in parts),
    )


def misfit(found: Any) -> str | None:
    """What is wrong with the content of a stream, whatever its images show."""
    names, labels, shapes, _ = found
    if not all(name and name.isprintable() and name == name.strip() for name in names):
        return f"class names that should not be shown: {names}"
    if any(len(each) != shape[0] for each, shape in zip(labels, shapes, strict=True)):
        return "other numbers of images and labels"
    seen = {label for each in labels for label in each}
    return None if seen <= set(range(len(names))) else f"labels {sorted(seen)} of {len(names)}"


class Arrays(Kind):
    """A `.npz` file, whose checksums notice damage; well-formed arrays of another kind are refused."""

    name = "data: npz"
    files = ("toy.npz",)

    def make(self, folder: Path) -> None:
        images, labels = pixels()
        np.savez(folder / "toy.npz", images=images, labels=labels)

    def mutate(self, folder: Path, chance: Random) -> str:
        if chance.random() < 0.6:
            return super().mutate(folder, chance)
        stored = dict(np.load(folder / "toy.npz"))
        done = odd_arrays(stored, chance)
        save = chance.choice((np.savez, np.savez_compressed))
        save(folder / "toy.npz", **stored)
        return f"toy.npz: {done}"

    def read(self, folder: Path) -> Any:
        return content(arrays("toy.npz", tasks=2))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        with np.load(folder / "toy.npz") as stored:  # what an independent reader finds in it
            images, labels = stored["images"], stored["labels"]
        if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
            return f"{images.dtype} images and {labels.dtype} labels were taken"
        if sum(len(each) for each in found[1]) != len(labels):
            return "some images are missing"
        return misfit(found)


class Columns(Arrays):
    """Images and labels in `.npy` files, which have no checksum: other pixels are other pixels."""

    name = "data: npy"
    files = ("images.npy", "labels.npy")

    def make(self, folder: Path) -> None:
        images, labels = pixels()
        np.save(folder / "images.npy", images)
        np.save(folder / "labels.npy", labels)

    def mutate(self, folder: Path, chance: Random) -> str:
        if chance.random() < 0.6:
            return Kind.mutate(self, folder, chance)
        stored = {name: np.load(folder / f"{name}.npy") for name in ("images", "labels")}
        done = odd_arrays(stored, chance)
        for name in ("images", "labels"):
            if name in stored:
                np.save(folder / f"{name}.npy", stored[name])
            else:
                (folder / f"{name}.npy").unlink()
        return done

    def read(self, folder: Path) -> Any:
        return content(arrays("images.npy", labels="labels.npy", tasks=2))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        labels = np.load(folder / "labels.npy")
        if sum(len(each) for each in found[1]) != len(labels):
            return "some images are missing"
        return misfit(found)


class ArrayFolder(Kind):
    """A prepared folder: `{train,test}_{images,labels}.npy` and `classes.json`."""

    name = "data: classes.json"
    files = ("prepared/classes.json", "prepared/classes.json", "prepared/*.npy")

    def make(self, folder: Path) -> None:
        (folder / "prepared").mkdir()
        for part, count in (("train", 60), ("test", 30)):
            images, labels = pixels(count)
            np.save(folder / "prepared" / f"{part}_images.npy", images)
            np.save(folder / "prepared" / f"{part}_labels.npy", labels)
        names = [f"class {i}" for i in range(6)]
        (folder / "prepared" / "classes.json").write_text(json.dumps(names))

    def read(self, folder: Path) -> Any:
        data = array_folder("prepared", Path("prepared"))
        stream = Stream.from_arrays(
            data.train.images, data.train.labels, 2, data.test.images, data.test.labels,
            data.class_names,
        )  # fmt: skip
        return content(stream)

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        names = found[0]
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            return f"class names that are none: {names}"
        return misfit(found)


def odd_arrays(stored: dict[str, Any], chance: Random) -> str:
    """Make one of the arrays another kind of array, or a missing one; says what was done."""
    name = chance.choice(list(stored))
    deed, change = chance.choice(list(ARRAYS.items()))
    changed = change(stored.pop(name))
    if changed is not None:
        stored[name] = changed
    return f"{name}: {deed}"


def _sprinkled(array: np.ndarray, value: Any, kind: Any) -> np.ndarray:
    changed = array.astype(kind)
    changed.reshape(-1)[0] = value
    return changed


ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "missing": lambda a: None,
    "floats": lambda a: a.astype(np.float64),
    "not a number": lambda a: _sprinkled(a, np.nan, np.float32),
    "negative": lambda a: _sprinkled(a, -7, np.int64),
    "huge": lambda a: _sprinkled(a, 2**62, np.int64),
    "truth": lambda a: a.astype(bool),
    "texts": lambda a: a.astype(str),
    "objects": lambda a: a.astype(object),
    "complex": lambda a: a.astype(complex),
    "dates": lambda a: a.astype("datetime64[s]"),
    "records": lambda a: np.zeros(len(a), [("x", "i4")]),
    "flat": lambda a: a.reshape(-1),
    "one more axis": lambda a: a[:, None],
    "a scalar": lambda a: a.reshape(-1)[0],
    "no rows": lambda a: a[:0],
    "one row": lambda a: a[:1],
    "fewer rows": lambda a: a[:-3],
    "all alike": lambda a: np.zeros_like(a),
    "another byte order": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "in another order in memory": lambda a: np.asfortranarray(a),
    "gaps": lambda a: a * 2,
    "no height": lambda a: a[:, :0] if a.ndim == 4 else a,
    "two channels": lambda a: a[..., :2] if a.ndim == 4 else a,
}


def draw(root: Path, format_: str | None = None) -> None:
    """Two folders of four images each; every format, or one."""
    images, _ = pixels(14)
    for number, image in enumerate(images):
        suffix = format_ or FORMATS[number // 2]
        place = root / f"class {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        large = Image.fromarray(image).resize((32, 24), Image.Resampling.NEAREST)
        large.save(place / f"{number:02d}.{suffix}")


class Images(Kind):
    """Image files, one format in all folders: other pixels are other pixels, but nothing may break."""

    format: str

    def make(self, folder: Path) -> None:
        draw(folder / "photos", self.format)

    def read(self, root: Path) -> Any:
        return content(folder("photos", tasks=2, image_size=8))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return misfit(found)


def _images(suffix: str) -> type[Images]:
    made = {"name": f"image: {suffix}", "files": ("photos/*/*",), "format": suffix, "share": 0.4}
    return type(f"Images{suffix.title()}", (Images,), made)


def _postscript(root: Path, file: Path) -> None:
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n")


def _outside(root: Path, file: Path) -> None:
    outside = root.parent / "outside"
    shutil.copytree(root / "class 0", outside)
    (root / "class 2").symlink_to(outside)


def _named(name: bytes) -> Callable[[Path, Path], None]:
    def rename(root: Path, file: Path) -> None:
        (root / "class 1").rename(root / os.fsdecode(name))

    return rename


def _one_bit(root: Path, file: Path) -> None:
    Image.new("1", (13_000, 13_000)).save(file.with_suffix(".png"))


def _flat(root: Path, file: Path) -> None:
    file.write_bytes(b"P6\n8 0\n255\n")


def _same_twice(root: Path, file: Path) -> None:
    shutil.copytree(root / "class 0", root / "e\u0301")
    shutil.copytree(root / "class 1", root / "\u00e9")


FOLDERS: dict[str, Callable[[Path, Path], None]] = {
    "PostScript": _postscript,
    "a folder from outside": _outside,
    "a link to itself": lambda root, file: (root / "class 0" / "x.png").symlink_to("x.png"),
    "a circle of folders": lambda root, file: (root / "class 0" / "in").symlink_to(root),
    "an image of one bit": _one_bit,
    "no height": _flat,
    "an empty class": lambda root, file: (root / "class 9").mkdir(),
    "two forms of one letter": _same_twice,
    "a pipe": lambda root, file: os.mkfifo(root / "class 0" / "pipe.png"),
    "a device": lambda root, file: (root / "class 0" / "zero.png").symlink_to("/dev/zero"),
    "a terminal escape": _named(b"\x1b[31mred"),
    "a line break": _named(b"a\nb"),
    "a right-to-left mark": _named("\u202ecat".encode()),
    "not UTF-8": _named(b"caf\xe9"),
    "blanks": _named(b" cat "),
    "a formula": _named(b"=1+1"),
    "a minus": _named(b"-x"),
    "a very long name": _named(b"x" * 250),
    "markup": _named(b"<script>alert(1)<"),
}


class Folders(Kind):
    """Folders of images with odd things in them."""

    name = "folders"
    files = ("photos/*/*",)
    share = 0.4

    def make(self, folder: Path) -> None:
        draw(folder / "photos")

    def mutate(self, folder: Path, chance: Random) -> str:
        root = folder / "photos"
        deed = chance.choice(list(FOLDERS))
        FOLDERS[deed](root, chance.choice(sorted((root / "class 0").iterdir())))
        return deed

    def read(self, root: Path) -> Any:
        return content(folder("photos", tasks=1, image_size=8))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        if (folder / "outside").exists() and not said:
            return "images from outside the folder were taken"
        return misfit(found)


class Zip(Kind):
    """A zip archive: its checksums notice damage."""

    name = "archive: zip"
    files = ("photos.zip",)
    suffix = ".zip"

    def make(self, folder: Path) -> None:
        draw(folder / "photos", "png")
        self.pack(folder, [(f, str(f.relative_to(folder))) for f in _files(folder / "photos")])
        shutil.rmtree(folder / "photos")

    def pack(self, folder: Path, entries: list[tuple[Path, str]]) -> None:
        """Write the archive: files and the names that they get in it."""
        with zipfile.ZipFile(folder / "photos.zip", "w", zipfile.ZIP_DEFLATED) as made:
            for file, name in entries:
                made.write(file, name)

    def mutate(self, folder: Path, chance: Random) -> str:
        if chance.random() < 0.8:
            return super().mutate(folder, chance)
        draw(folder / "new", "png")
        files = _files(folder / "new")
        entries = [(file, f"photos/{file.relative_to(folder / 'new')}") for file in files]
        name = chance.choice(NAMES)
        entries[chance.randrange(len(entries))] = (files[0], name)
        self.pack(folder, entries)
        shutil.rmtree(folder / "new")
        return f"an entry called {name!r}"

    def read(self, root: Path) -> Any:
        return content(folder(f"photos{self.suffix}", tasks=2, image_size=8))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        written = [f for f in _files(folder) if not f.is_relative_to(self.target(folder))]
        if [f for f in written if f.suffix == ".png"]:
            return f"written outside: {written}"
        if found[0] != expected[0] or sum(map(len, found[1])) != sum(map(len, expected[1])):
            return misfit(found) or (None if said else "other classes or fewer images, not a word")
        return misfit(found) or "other pixels, not a word"

    def target(self, folder: Path) -> Path:
        """Where it is unpacked to."""
        return folder / f"photos{self.suffix}.unpacked"


class Tar(Zip):
    """A compressed tar archive."""

    name = "archive: tar.gz"
    files = ("photos.tar.gz",)
    suffix = ".tar.gz"

    def pack(self, folder: Path, entries: list[tuple[Path, str]]) -> None:
        with tarfile.open(folder / "photos.tar.gz", "w:gz") as made:
            for file, name in entries:
                made.add(file, name)


class Unpacked(Zip):
    """What an earlier run unpacked: images that are missing or damaged since are noticed."""

    name = "archive: unpacked"
    files = ("photos.zip.unpacked/**/*", "photos.zip.unpacked/.*")
    share = 0.5

    def make(self, folder: Path) -> None:
        super().make(folder)
        self.read(folder)

    def mutate(self, folder: Path, chance: Random) -> str:
        return Kind.mutate(self, folder, chance)


NAMES = (
    *("../x.png", "/tmp/x.png", "photos/../../x.png", "C:\\x.png", "photos/class 0/../x.png"),
    *(
        "photos/\x1b[31m/x.png",
        "photos/class 1/a\nb.png",
        "photos/ /x.png",
        "x.png",
        "photos//x.png",
    ),
    *(
        "photos/class 0/00.png/x.png",
        f"{'d/' * 400}x.png",
        "photos/class 0/.png",
        "photos/x/.x.png",
    ),
)


def _files(root: Path) -> list[Path]:
    return sorted(f for f in root.rglob("*") if f.is_file())


KINDS_HERE = (
    *(Arrays, Columns, ArrayFolder, Folders, Zip, Tar, Unpacked),
    *(_images(suffix) for suffix in FORMATS),
)
