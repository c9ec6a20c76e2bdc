"""Teach a saved learner the images of a folder:  python -m cl.learn OLD IMAGES NEW."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cl.data.arrays import Array
from cl.data.computed import mapped_to
from cl.data.files import file_images, image_files, subfolders
from cl.errors import DataError, PalimpsestError
from cl.learner import Learner


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
    classes = subfolders(images) if images.is_dir() else []
    files = [(file, folder.name) for folder in classes for file in image_files(folder)]
    if not files:
        raise DataError(f"{images}: there are no images in folders <class>/<image> here.")
    pixels = read_images([file for file, _ in files], learner)
    known = set(learner.class_names)
    learner.learn(pixels, [name for _, name in files])
    learner.save(new)
    if export is not None:
        learner.export(export)
    added = [name for name in learner.class_names if name not in known]
    print(f"Learnt {len(files)} images of {len(classes)} classes, {len(added)} of them new.")
    print(f"The learner is in {new}; it knows {learner.seen} classes.")
    return learner


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
