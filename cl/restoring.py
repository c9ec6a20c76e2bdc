"""Attributes that `cl.snapshot` wrote, put back into a learner: nothing but data, and only where data was."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, nn

from cl.errors import WeightsError, explained
from cl.snapshot import (
    FRAMEWORKS,
    MAPPINGS,
    MODULES_OWN,
    PLAIN,
    SEQUENCES,
    Tensors,
    may_change,
)


def put(root: nn.Module, tensors: Tensors, values: Any, device: torch.device) -> None:
    """Put what `snapshot.take` gave into modules of the same structure.

    WeightsError for what it cannot have written: an attribute of no module here, a method, a value of no
    kind that there is, a tensor that is missing.
    """
    if not isinstance(values, Mapping):
        raise WeightsError("The attributes are damaged: they must be names and values.")
    modules = dict(root.named_modules())
    for key, value in values.items():
        path, _, name = key.partition(":")
        if path not in modules or path == FRAMEWORKS:
            raise WeightsError(f"This learner has no {path}, for which {name} was kept.")
        owner = modules[path]
        with explained(WeightsError, f"{key.replace(':', '.')} cannot be what was kept"):
            _require_data(owner, name)
            _set(owner, name, value, tensors, device)


def _set(owner: Any, name: str, value: Any, tensors: Tensors, device: torch.device) -> None:
    present = getattr(owner, name, None)
    if value != {"built": None}:  # of which there is nothing to set
        setattr(owner, name, decode(value, present, tensors, device))


def _require_data(owner: Any, name: str) -> None:
    """A ValueError unless an attribute of this name holds data: no method, and nothing of torch's."""
    of_class = inspect.getattr_static(type(owner), name, None)
    if not name.isidentifier() or name.startswith("__"):
        raise ValueError("it is no name of an attribute")
    if callable(of_class) or hasattr(of_class, "__get__"):
        raise ValueError("it is a method or a property")
    if isinstance(owner, nn.Module):
        left_out = MODULES_OWN | {*getattr(owner, "transient", ())}
        if name in left_out or name in owner._parameters | owner._buffers | owner._modules:
            raise ValueError("it is kept elsewhere, or not at all")


def decode(encoded: Any, present: Any, tensors: Tensors, device: torch.device) -> Any:
    """The value again. present: what is there now; generators, modules and objects are set, not replaced.

    Raises whatever malformed content leads to.
    """
    ((kind, content),) = encoded.items()
    if kind == "value":
        if type(content) not in PLAIN:
            raise TypeError(f"a {type(content).__name__} is no plain value")
        return content
    if kind in ("tensor", "cpu"):
        return tensors[content].to(device if kind == "tensor" else "cpu")
    if kind in ("array", "number"):
        array = tensors[content].numpy()
        return array if kind == "array" else array[()]
    if kind == "generator":
        generator = present if isinstance(present, Generator) else torch.Generator()
        generator.set_state(tensors[content])
        return generator
    if kind in SEQUENCES:
        there = list(present) if isinstance(present, list | tuple | deque) else []
        there += [None] * (len(content) - len(there))
        items = (decode(e, now, tensors, device) for e, now in zip(content, there, strict=False))
        return SEQUENCES[kind](items)
    if kind in MAPPINGS or kind == "filled":
        pairs = [(decode(k, None, tensors, device), v) for k, v in content]
        known = present if isinstance(present, dict) else {}
        found = {k: decode(v, known.get(k), tensors, device) for k, v in pairs}
        if kind in MAPPINGS:
            return MAPPINGS[kind](found)
    return _into(present, kind, found if kind == "filled" else content, tensors, device)


def _into(present: Any, kind: str, content: Any, tensors: Tensors, device: torch.device) -> Any:
    """What is there now, with what was kept in it."""
    if kind == "filled" and isinstance(present, dict):
        present.clear()
        present.update(content)
    elif kind == "module" and isinstance(present, nn.Module):
        named = {name: tensors[key] for item in content for name, key in item.items()}
        present.load_state_dict(named)
    elif kind == "object" and may_change(present):
        for name, value in content.items():
            _require_data(present, name)
            _set(present, name, value, tensors, device)
    elif kind != "built" or present is None:
        raise ValueError(f"nothing is here for the kind {kind!r}")
    return present
