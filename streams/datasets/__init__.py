"""The data sets by name. Each is one function without arguments (or with an image size) to a `DataSet`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from cl.data.datasets import DataSet
from cl.data.unpacking import is_archive
from cl.errors import ConfigurationError, require, suggest
from streams.datasets import arrays, files
from streams.datasets.hub import read_hub
from streams.datasets.own import read

IMAGE_SIZE = 64
HUB = "hf:"

ARRAYS: dict[str, Callable[[], DataSet]] = {
    "digits": arrays.digits,
    "mnist": arrays.mnist,
    "fashion_mnist": arrays.fashion_mnist,
    "svhn": arrays.svhn,
    "cifar10": arrays.cifar10,
    "cifar100": arrays.cifar100,
    "tiny_imagenet": arrays.tiny_imagenet,
}

FILES: dict[str, Callable[[int], DataSet]] = {
    "cub200": files.cub200,
    **{name: partial(files.from_torchvision, name) for name in files.VISION},
    **{name: partial(files.from_folder, name) for name in files.FOLDERS},
}


def load(dataset: str | DataSet) -> DataSet:
    """The data set of this name; a `DataSet` is handed back.

    Images in files have 64 pixels a side; another side follows an @: "flowers@224". A path stands for one's
    own data: a `.npz` file, or a folder or archive in one of the layouts of `streams.own.folder`.
    "hf:ylecun/mnist" is a data set of Hugging Face.
    """
    if isinstance(dataset, DataSet):
        return dataset
    name, _, side = dataset.rpartition("@") if "@" in dataset else (dataset, "", "")
    if "/" in side or os.path.exists(dataset):  # noqa: PTH110 (an @ in the name of a folder)
        name, side = dataset, ""
    require(
        side == "" or (side.isdigit() and int(side) > 0),
        f"stream.dataset={dataset}: after the @ stands the side of the images in pixels, as in {name}@224.",
    )
    size = int(side or IMAGE_SIZE)
    if name in ARRAYS:
        require(
            side == "", f"stream.dataset={dataset}: {name} has its own size; leave out @{side}."
        )
        return ARRAYS[name]()
    if name in FILES:
        return FILES[name](size)
    if name.startswith(HUB):
        return read_hub(name.removeprefix(HUB), size)
    if "/" in name or name.endswith(".npz") or is_archive(name) or os.path.isdir(name):  # noqa: PTH112
        return read(name, size)
    raise ConfigurationError(
        f"stream.dataset={dataset}: {suggest(name, [*ARRAYS, *FILES])} "
        "A folder of your own images is given by its path."
    )
