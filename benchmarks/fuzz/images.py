"""Image files in folders, and archives of them."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from benchmarks.fuzz.arrays import content, misfit
from benchmarks.fuzz.harness import Kind
from benchmarks.toys import pixels
from streams.own import folder

FORMATS = ("png", "jpeg", "webp", "gif", "tif", "bmp", "ppm")


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
                made.writestr(zipfile.ZipInfo(name), file.read_bytes(), zipfile.ZIP_DEFLATED)

    def read(self, root: Path) -> Any:
        return content(folder(f"photos{self.suffix}", tasks=2, image_size=8))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return None if said else "other images, and not a word"


class Tar(Zip):
    """A compressed tar archive."""

    name = "archive: tar.gz"
    files = ("photos.tar.gz",)
    suffix = ".tar.gz"

    def pack(self, folder: Path, entries: list[tuple[Path, str]]) -> None:
        with (
            gzip.GzipFile(folder / "photos.tar.gz", "w", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as made,
        ):
            for file, name in entries:
                entry = tarfile.TarInfo(name)
                entry.size = file.stat().st_size
                made.addfile(entry, io.BytesIO(file.read_bytes()))


class Unpacked(Zip):
    """What an earlier run unpacked: images that are missing, or larger or smaller, are noticed.

    Bytes that were exchanged in place are not, as in any folder of images, unless the image cannot be
    decoded.
    """

    name = "archive: unpacked"
    files = ("photos.zip.unpacked/**/*", "photos.zip.unpacked/.*")
    share = 0.5

    def make(self, folder: Path) -> None:
        super().make(folder)
        self.read(folder)

    def mutate(self, folder: Path, chance: Random) -> str:
        return Kind.mutate(self, folder, chance)

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return misfit(found)


class Entries(Zip):
    """Archives that somebody has made, with an image of a peculiar name in them."""

    name = "archive: entries"
    share = 0.4

    def mutate(self, folder: Path, chance: Random) -> str:
        draw(folder / "photos", "png")
        entries = [(file, str(file.relative_to(folder))) for file in _files(folder / "photos")]
        entries.append((entries[0][0], chance.choice(NAMES)))
        if chance.random() < 0.5:
            (folder / "photos.zip").unlink()
            Tar().pack(folder, entries)
        else:
            self.pack(folder, entries)
        shutil.rmtree(folder / "photos")
        return f"an entry called {entries[-1][1][:80]!r}"

    def read(self, root: Path) -> Any:
        (archive,) = root.glob("photos.*")
        return content(folder(archive.name, tasks=1, image_size=8))

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        images = [f.relative_to(folder) for f in _files(folder) if f.suffix == ".png"]
        outside = [f for f in images if not f.parts[0].endswith(".unpacked")]
        return f"written outside: {outside}" if outside else misfit(found)


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
    *(Folders, Zip, Tar, Unpacked, Entries),
    *(_images(suffix) for suffix in FORMATS),
)
