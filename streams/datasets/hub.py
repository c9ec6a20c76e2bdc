"""Data sets of the Hugging Face hub and in its formats (extra `hf`); imported when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cl.data.arrays import Array, ArrayDataset
from cl.data.computed import computed
from cl.data.datasets import DataSet, MissingDataError, stratified_split
from cl.data.decoding import decode_all, read_bytes
from cl.errors import ConfigurationError, DataError, explained, require, suggest
from streams.datasets.places import offline

TEST_SPLITS = ("test", "validation", "valid", "val")
NEEDED = 'stream=hf needs a package: pip install "palimpsest[hf]"'


def read_hub(
    name: str,
    image_size: int,
    subset: str | None = None,
    image: str | None = None,
    label: str | None = None,
    train: str = "train",
    test: str | None = None,
    test_share: float = 0.2,
    seed: int = 0,
) -> DataSet:
    """A data set of the hub or of a local folder, with the arguments of `streams.own.hf`."""
    splits = _splits(name, subset)
    require(train in splits, f"stream.train={train}: {suggest(train, splits)}")
    test = test or next((each for each in TEST_SPLITS if each in splits and each != train), None)
    require(test is None or test in splits, f"stream.test={test}: {suggest(str(test), splits)}")
    source = splits[train]
    image = _column(source, "image", image)
    label = _column(source, "label", label)
    labels, names = _labels(source, label, None, f"{name}, {train}")
    images = _images(source, image, image_size, f"{name}, {train}")
    title = Path(name).name
    if test is None:
        labels, names = _used(names, labels)
        kept, held = stratified_split(labels, test_share, seed)
        parts = (ArrayDataset(images, labels, kept), ArrayDataset(images, labels, held))
        return DataSet(title, *parts, names, "crop_flip")
    tested, _ = _labels(splits[test], label, names, f"{name}, {test}")
    labels, tested, names = _used(names, labels, tested)
    pixels = _images(splits[test], image, image_size, f"{name}, {test}")
    parts = (ArrayDataset.of(images, labels), ArrayDataset.of(pixels, tested))
    return DataSet(title, *parts, names, "crop_flip")


def _splits(name: str, subset: str | None) -> dict[str, Any]:
    """The splits of the data set by name; one without splits is its "train"."""
    try:
        import datasets
    except ImportError:
        raise ConfigurationError(NEEDED) from None
    folder = Path(name).expanduser()
    if not folder.exists() and offline():
        raise MissingDataError(f"{name} may have to be downloaded, and CL_OFFLINE is set.")
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "dataset_info.json").exists():
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder) if folder.exists() else name, subset)
    except Exception as error:  # of the network, the disk, a missing subset: many kinds
        told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"stream.name={name}: it cannot be loaded: {told}\nGive a name of huggingface.co/datasets, "
            "such as ylecun/mnist, or a folder that datasets wrote; stream.subset=… if it has several."
        ) from None
    return dict(found) if isinstance(found, dict) else {"train": found}


def _column(source: Any, kind: str, given: str | None) -> str:
    """The column of this kind: the given one, or the only one that is an Image or a ClassLabel."""
    columns = list(source.column_names)
    if given is not None:
        require(given in columns, f"stream.{kind}={given}: {suggest(given, columns)}")
        return given
    wanted = {"image": "Image", "label": "ClassLabel"}[kind]
    fitting = [name for name in columns if type(source.features[name]).__name__ == wanted]
    if not fitting and kind in columns:
        return kind
    require(
        len(fitting) == 1,
        f"stream.{kind}: say which column it is: stream.{kind}=… of {', '.join(fitting or columns)}.",
    )
    return fitting[0]


def _labels(
    source: Any, column: str, names: tuple[str, ...] | None, where: str
) -> tuple[Array, tuple[str, ...]]:
    """int64 labels and the names of the classes, which are those of the training split if given."""
    known = getattr(source.features[column], "names", None)
    with explained(DataError, f"{where}: the column {column} cannot be read"):
        values = source.select_columns(column)[:][column]
    if known is not None:
        labels = np.array([-1 if value is None else value for value in values], dtype=np.int64)
        if len(labels) and labels.min() < 0:
            raise DataError(
                f"{where}: there are images without a label. stream.test= names a split."
            )
        if len(labels) and labels.max() >= len(known):
            raise DataError(
                f"{where}: the column {column} holds {labels.max()}, but has {len(known)} names."
            )
        return labels, tuple(known)
    if wrong := [value for value in values if not isinstance(value, int | str)]:
        raise DataError(
            f"{where}: the column {column} holds {wrong[0]!r}; a label is a number or a word. "
            "Another column: stream.label=…"
        )
    words = [str(value) for value in values]
    found = names or tuple(dict.fromkeys(str(value) for value in sorted(set(values))))
    number = {word: position for position, word in enumerate(found)}
    if unknown := sorted(set(words) - set(number)):
        raise DataError(f"{where}: {', '.join(unknown[:5])}: no class of the training images.")
    return np.array([number[word] for word in words], dtype=np.int64), found


def _used(names: tuple[str, ...], *labels: Array) -> tuple[Any, ...]:
    """The labels renumbered without the classes that have no image, and the names of the others."""
    used = np.unique(np.concatenate(labels))
    renumbered = [np.searchsorted(used, each).astype(np.int64) for each in labels]
    return *renumbered, tuple(names[label] for label in used)


def _images(source: Any, column: str, size: int, where: str) -> Array:
    """The images of a column, decoded when they are read."""
    import datasets

    try:
        encoded = source.select_columns(column).cast_column(column, datasets.Image(decode=False))
    except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's are of these
        raise DataError(
            f"{where}: the column {column} holds no images ({error}). Another one: stream.image=…"
        ) from None

    def sources(rows: Array) -> list[bytes | Path]:
        with explained(DataError, f"{where}: the column {column} cannot be read"):
            found = encoded[rows.tolist()][column]
        if empty := [row for row, each in zip(rows, found, strict=True) if not _has_image(each)]:
            raise DataError(f"{where}: row {empty[0]} has no image in the column {column}.")
        return [each["bytes"] or Path(each["path"]) for each in found]

    def make(rows: Array) -> Array:
        return decode_all(sources(rows), size, [f"{where}, image {row}" for row in rows])

    def stored(rows: Array) -> list[bytes]:
        return [each if isinstance(each, bytes) else read_bytes(each) for each in sources(rows)]

    return computed((len(source), size, size, 3), make, f"files/{size}", stored)


def _has_image(cell: Any) -> bool:
    return cell is not None and bool(cell["bytes"] or cell["path"])
