"""Teach a saved learner the images of a folder:  python -m cl.learn OLD IMAGES NEW."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cl.data.arrays import Array
from cl.data.computed import mapped_to
from cl.data.files import file_images
from cl.data.folders import Folders, part_of, without_wrapper
from cl.errors import DataError, PalimpsestError
from cl.learner import Learner
from cl.names import class_names, shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments from the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m cl.learn", description=__doc__)
    parser.add_argument("old", type=Path, help="a learner's folder, such as runs/…/learner")
    parser.add_argument("images", type=Path, help="a folder with one folder of images per class")
    parser.add_argument("new", type=Path, help="where the learner is written; OLD stays as it is")
    parser.add_argument("--export", type=Path, help="also write weights that plain timm loads")
    parser.add_argument("--trust", nargs="*", default=[], help="packages that OLD may name")
    options = parser.parse_args(arguments)
    try:
        teach(options.old, options.images, options.new, options.export, options.trust)
    except PalimpsestError as error:
        sys.exit(f"error: {error}")


def teach(
    old: Path, images: Path, new: Path, export: Path | None = None, trust: Sequence[str] = ()
) -> Learner:
    """Open the learner in `old`, let it learn the class folders in `images`, and write it to `new`."""
    if new.exists() and any(new.iterdir()):
        raise DataError(f"{new} is not empty. Give a new folder.")
    learner = Learner.load(old, trust)
    folders = Folders(images)
    files = class_files(folders)
    pixels = read_images([file for file, _ in files], learner)
    known = set(learner.class_names)
    learner.learn(pixels, [name for _, name in files])
    learner.save(new)
    if export is not None:
        learner.export(export)
    added = [name for name in learner.class_names if name not in known]
    classes = len({name for _, name in files})
    print(
        f"Learnt {len(files)} images of {classes} classes, {len(added)} of them new{folders.note}."
    )
    print(f"The learner is in {shown(new)}; it knows {learner.seen} classes.")
    return learner


def class_files(folders: Folders) -> list[tuple[Path, str]]:
    """Each image under the class folders, with its class; a DataError for folders that are parts."""
    if not folders.root.is_dir():
        raise DataError(f"{shown(folders.root)}: there is no such folder.")
    root = without_wrapper(folders, folders.root)
    classes = folders.subfolders(root)
    if parts := [folder for folder in classes if part_of(folder.name)]:
        raise DataError(
            f"{shown(root)}: {shown(parts[0].name)} is no class but a part of a data set. Give the part that "
            f"is to be learnt, such as {shown(parts[-1])}."
        )
    names = class_names([folder.name for folder in classes], root)
    found = zip(map(folders.images, classes), names, strict=True)
    files = [(file, name) for inside, name in found for file in inside]
    if not files:
        raise DataError(
            f"{shown(root)}: there are no images in folders <class>/<image> here{folders.note}."
        )
    return files


def read_images(files: Sequence[Path], learner: Learner) -> Array:
    """The images of `files` as those that the learner has learnt, decoded when they are read."""
    size = learner.model.transform.size
    height, _, channels = learner.image_shape or (size, size, 3)
    images = file_images(files, height, key="files")
    if channels == 3:
        return images
    return mapped_to((height, height, 1), images, lambda pixels, rows: grey(pixels), "grey")


def grey(pixels: Array) -> Array:
    """uint8 B × H × W × 3 to B × H × W × 1."""
    return np.asarray(np.round(pixels.mean(axis=3, keepdims=True)), dtype=np.uint8)


if __name__ == "__main__":
    main()
