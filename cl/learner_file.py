"""All that learning changes in a learner: in memory, and in files, which are checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl.checkpoint import (
    check_format,
    check_seal,
    is_count,
    layout,
    load_json,
    load_tensors,
    save_json,
    save_tensors,
)
from cl.data import AUGMENTATIONS
from cl.errors import DataError, WeightsError
from cl.names import class_name
from cl.snapshot import Tensors, Values

FORMAT = 2
"""Version 0.1 wrote format 1, which kept no attributes of methods."""

DESCRIPTION, STATE, ATTRIBUTES = "learner.json", "state.safetensors", "attributes.safetensors"
FILES = (DESCRIPTION, STATE)
"""What the seal of a stored learner must cover, beside its attributes."""

SECTIONS = ("strategy", "plugin", "backbone", "trainer")


@dataclass
class Kept:
    """What a learner is after so many experiences, besides its recipe.

    state: all parameters and buffers. attributes, values: of its methods (`cl.snapshot`). run_id: of the
    run that it learnt in, if any. pretrained: where the backbone's weights are from.
    """

    state: Tensors
    attributes: Tensors
    values: Values
    class_names: tuple[str, ...]
    experiences: int
    image_shape: tuple[int, ...] | None
    run_id: str | None
    pretrained: str


def write_learner(kept: Kept, recipe: Any, stream: Any, augmentation: str, folder: Path) -> None:
    """Write a learner's files into a folder; whoever calls seals it."""
    save_tensors(kept.state, folder / STATE)
    save_tensors(kept.attributes, folder / ATTRIBUTES)
    content = {
        "format": FORMAT,
        "attributes": kept.values,
        "layout": layout({**kept.state, **kept.attributes}),
        "run": kept.run_id,
        "recipe": recipe,
        "stream": stream,
        "augmentation": augmentation,
        "class_names": kept.class_names,
        "experiences": kept.experiences,
        "image_shape": kept.image_shape,
        "pretrained": kept.pretrained,
    }
    save_json(content, folder / DESCRIPTION)


def read_learner(folder: Path) -> tuple[dict[str, Any], Kept]:
    """What `write_learner` wrote: learner.json, and what it and the other files say was kept.

    WeightsError where a file is missing or damaged.
    """
    content = read_description(folder)
    old = content["format"] == 1
    shape = content["image_shape"]
    kept = Kept(
        load_tensors(folder / STATE),
        {} if old else load_tensors(folder / ATTRIBUTES),
        content["attributes"],
        tuple(content["class_names"]),
        content["experiences"],
        shape and tuple(shape),
        content.get("run"),
        content["pretrained"],
    )
    return content, kept


def read_description(folder: Path) -> dict[str, Any]:
    """The content of `folder`/learner.json; WeightsError where the folder or a value cannot be right."""
    file = folder / DESCRIPTION
    content = load_json(file)
    if not isinstance(content, dict):
        raise WeightsError(f"{file} is damaged: it must hold names and values.")
    check_format(content, FORMAT, file)
    if content["format"] == 1:
        content["attributes"] = {}
    check_seal(folder, FILES if content["format"] == 1 else (*FILES, ATTRIBUTES))
    for name, right in _checks(content).items():
        if not right:
            shown = repr(content.get(name, "missing"))[:60]
            raise WeightsError(f"{file} is damaged: {name} cannot be {shown}.")
    content["recipe"] = {key: content["recipe"][key] for key in (*SECTIONS, "seed")}
    return content


def _checks(content: Mapping[str, Any]) -> dict[str, bool]:
    """For each entry whether its type and range are right."""
    names, shape = content.get("class_names"), content.get("image_shape")
    experiences, pretrained = content.get("experiences"), content.get("pretrained")
    return {
        "attributes": isinstance(content.get("attributes"), dict),
        "recipe": _is_recipe(content.get("recipe")),
        "stream": _is_stream(content.get("stream")),
        "augmentation": content.get("augmentation") in [*AUGMENTATIONS],
        "class_names": _are_names(names) and bool(experiences or not names),
        "experiences": is_count(experiences),
        "image_shape": "image_shape" in content
        and (shape is None or (_are_counts(shape) and len(shape) == 3)),
        "pretrained": isinstance(pretrained, str),
        "run": isinstance(content.get("run"), str | None),
        "layout": isinstance(content.get("layout"), str | None),
    }


def _is_recipe(recipe: Any) -> bool:
    if not isinstance(recipe, dict) or type(recipe.get("seed")) is not int:
        return False
    return all(isinstance(recipe.get(section), dict) for section in SECTIONS)


def _is_stream(stream: Any) -> bool:
    if not isinstance(stream, dict) or stream.keys() != {"name", "scenario", "experiences"}:
        return False
    texts = isinstance(stream["name"], str) and isinstance(stream["scenario"], str)
    return texts and is_count(stream["experiences"])


def _are_names(names: Any) -> bool:
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return texts and len(set(names)) == len(names) and all(map(_is_name, names))


def _is_name(name: str) -> bool:
    """Whether it is what `class_name` makes of it, as all names of classes are."""
    try:
        return class_name(name) == name
    except DataError:
        return False


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(is_count(value, least=1) for value in values)
