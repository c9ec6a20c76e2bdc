"""Folders of images: what is found in them, what is left out and why, and names that stand for parts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl.data.files import is_image
from cl.errors import DataError
from cl.names import shown

Part = Literal["train", "test"]

PARTS = re.compile(
    r"(?P<prefix>.*[\W_])?"
    r"((?P<train>train|training|trn)|(?P<test>test|testing|tst|eval|evaluation|val|valid|validation|dev))"
    r"[\W_]*(set|data|dataset|images?|imgs?|pictures|photos|folder|part|split)?[\W_\d]*",
    re.IGNORECASE,
)


@dataclass
class Folders:
    """Images and folders under `root`; what is not taken is counted in `left_out`, by its reason.

    Hidden files and folders are passed over. A link that leads out of `root` is an error, and a linked
    folder inside is left out, for its images would be there twice; with `follow_links` both are followed,
    unless they lead back to where they are.
    """

    root: Path
    follow_links: bool = False
    left_out: dict[str, set[Path]] = field(default_factory=dict)

    def subfolders(self, folder: Path) -> list[Path]:
        """The folders in a folder, by name; numbers, if all names are numbers, by value."""
        found = [Path(entry.path) for entry in self._entries(folder) if entry.is_dir()]
        if all(each.name.isdecimal() for each in found):
            found.sort(key=lambda each: (int(each.name), each.name))
        return found

    def images(self, folder: Path) -> list[Path]:
        """The images in a folder and its folders: its own first, each by name."""
        own, inner = [], []
        for entry in self._entries(folder):
            if entry.is_dir():
                inner.append(Path(entry.path))
            elif not is_image(entry.name):
                self.leave_out(os.path.splitext(shown(entry.name))[1] or "others", entry.path)  # noqa: PTH122
            elif not entry.is_file():
                self.leave_out("pipes or devices", entry.path)
            else:
                own.append(Path(entry.path))
        return own + [file for each in inner for file in self.images(each)]

    def has_images(self, folder: Path) -> bool:
        """Whether there are images right in this folder."""
        return any(is_image(entry.name) and not entry.is_dir() for entry in self._entries(folder))

    def leave_out(self, reason: str, path: Path | str) -> None:
        """Count a file or a folder that is not taken; once, however often it is met."""
        self.left_out.setdefault(reason, set()).add(Path(path))

    @property
    def note(self) -> str:
        """How many were left out and why: ", 12 left out (8 .heic, 4 linked folders; …)"; "" if none."""
        if not self.left_out:
            return ""
        counts = {reason: len(paths) for reason, paths in sorted(self.left_out.items())}
        told = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
        first = min(min(paths) for paths in self.left_out.values())
        return f", {sum(counts.values()):,} left out ({told}; such as {shown(first)})"

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{shown(folder)} cannot be read: {error.strerror}.") from None
        for entry in found:
            if entry.name.startswith(".") or (entry.is_symlink() and not self._follows(entry)):
                continue
            yield entry

    def _follows(self, link: os.DirEntry[str]) -> bool:
        path = Path(link.path)
        folder = path.is_dir()
        if not folder and not is_image(link.name):
            return False
        if not path.exists():
            self.leave_out("broken links", path)
            return False
        target = path.resolve()
        if not self.follow_links and not target.is_relative_to(self.root.resolve()):
            raise DataError(
                f"{shown(path)} is a link to {shown(target)}, outside of {shown(self.root)}. Copy the images "
                "there, or let a folder stream follow links: stream.follow_links=true"
            )
        if folder and target in {each.resolve() for each in path.parents}:
            self.leave_out("links in a circle", path)
            return False
        if folder and not self.follow_links:
            self.leave_out("linked folders", path)
            return False
        return True


def part_of(name: str, prefix: bool = False) -> Part | None:
    """Whether a folder's name, in any spelling, stands for training or test images: Training, test_set, val.

    prefix: also names such as seg_train, which alone may well be a class: bullet_train.
    """
    found = PARTS.fullmatch(name)
    if found is None or (found["prefix"] and not prefix):
        return None
    return "train" if found["train"] else "test"


def without_wrapper(folders: Folders, folder: Path) -> Path:
    """The folder itself, or the one inside it that holds everything, if that has folders and is no part."""
    while not folders.has_images(folder):
        inner = folders.subfolders(folder)
        if len(inner) != 1 or part_of(inner[0].name) or not folders.subfolders(inner[0]):
            break
        folder = inner[0]
    return folder
