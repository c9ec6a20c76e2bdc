"""learner.json: what a saved learner is, besides its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cl.checkpoint import load_json
from cl.errors import WeightsError
from cl.stored import fields

FORMAT = 2
"""Version 0.1 wrote format 1, which had no attributes."""
CONTENT = {
    "format": int,
    "attributes": dict,
    "recipe": dict,
    "stream": dict,
    "augmentation": str,
    "class_names": list,
    "experiences": int,
    "image_shape": list | None,
    "pretrained": str,
}
RECIPE = {"strategy": dict, "plugin": dict, "backbone": dict, "trainer": dict, "seed": int}
STREAM = {"name": str, "scenario": str, "experiences": int}


def read_description(file: Path) -> dict[str, Any]:
    """The content of a learner.json; WeightsError when it is not as `Learner.save` writes it."""
    content = load_json(file)
    if isinstance(content, dict) and content.get("format") == 1:
        content["attributes"] = {}
    content = fields(content, file, CONTENT, WeightsError)
    if content["format"] not in (1, FORMAT):
        raise WeightsError(
            f"{file} has format {content['format']}; this version of Palimpsest reads up to {FORMAT}."
        )
    for part, kinds in {"recipe": RECIPE, "stream": STREAM}.items():
        found = fields(content[part], f"{file}: {part}", kinds, WeightsError)
        content[part] = {name: found[name] for name in kinds}
    names, shape = content["class_names"], content["image_shape"] or []
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise WeightsError(f"{file} is damaged: class_names must be different texts.")
    if not all(type(side) is int and side > 0 for side in shape) or content["experiences"] < 0:
        raise WeightsError(f"{file} is damaged: image_shape and experiences must be counts.")
    return content
