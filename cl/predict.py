"""Ask a saved learner what is on the images of a folder:  python -m cl.predict LEARNER IMAGES."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from cl.data import ArrayDataset
from cl.data.folders import Folders
from cl.errors import DataError, PalimpsestError
from cl.learn import read_images
from cl.learner import Learner
from cl.names import cell, shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments from the command line; write one CSV line per image to the standard output."""
    parser = argparse.ArgumentParser(prog="python -m cl.predict", description=__doc__)
    parser.add_argument("learner", type=Path, help="a learner's folder, such as runs/…/learner")
    parser.add_argument("images", type=Path, help="an image, or a folder of images")
    parser.add_argument("--trust", nargs="*", default=[], help="packages that the learner may name")
    options = parser.parse_args(arguments)
    try:
        rows = predictions(Learner.load(options.learner, options.trust), options.images)
    except PalimpsestError as error:
        sys.exit(f"error: {error}")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("image", "class", "share"))
    writer.writerows((cell(file), cell(name), f"{share:.4f}") for file, name, share in rows)


def predictions(learner: Learner, images: Path) -> list[tuple[Path, str, float]]:
    """For each image its file, its most probable class, and the softmax of that class's logit."""
    folders = Folders(images)
    files = folders.images(images) if images.is_dir() else [images]
    if not files:
        raise DataError(f"{shown(images)}: there are no images here{folders.note}.")
    pixels = read_images(files, learner)
    shares, labels = learner.logits(ArrayDataset.unlabelled(pixels)).softmax(1).max(1)
    names = [learner.class_names[label] for label in labels.tolist()]
    return list(zip(files, names, shares.tolist(), strict=True))


if __name__ == "__main__":
    main()
