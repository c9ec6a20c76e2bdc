"""What a learner holds, as tensors and plain values, and back again.

Torch finds parameters and buffers. A method also has attributes: counters, sets, generators, arrays. They
are found here, written as JSON with their tensors beside it, and put (`cl.restoring`) into a learner that
was built anew by the same recipe. What cannot be written is left alone if it cannot change and is the very
object that was there when the learner was built, and refused otherwise: nothing is lost without a word.
"""

from __future__ import annotations

import functools
import random
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from cl.errors import PalimpsestError

Tensors = dict[str, Tensor]
Values = dict[str, Any]

MODULES_OWN = frozenset(vars(nn.Module())) | {"run", "dump_patches"}
"""Attributes that every module has, or that the framework sets."""

FRAMEWORKS = "model"
"""The module whose own attributes are the framework's; those of the modules in it are not."""

NETWORK = "model."
"""What is in the model, networks of others among it, may hold any object that was there from the start."""

PLAIN = (type(None), bool, int, float, str)
SEQUENCES: dict[str, Any] = {k.__name__: k for k in (list, tuple, set, frozenset, deque)}
MAPPINGS: dict[str, Any] = {kind.__name__: kind for kind in (dict, OrderedDict, Counter)}
FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, functools.partial)
VALUES = (bytes, complex, range, slice, Enum, PurePath, re.Pattern, torch.dtype, torch.device)
FIXED = (type, ModuleType, *FUNCTIONS, *VALUES, torch.Size, nn.Module, nn.Parameter)
HIDDEN = (random.Random, np.random.Generator, np.random.RandomState)
"""Their state is in no attribute."""


class StateError(PalimpsestError):
    """A method holds something that cannot be kept."""


@dataclass(frozen=True)
class Built:
    """What a learner held at one moment: later, this much need not be written.

    values: of the attributes that can be written. objects: what cannot, by its place.
    """

    values: Values = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)


def survey(root: nn.Module) -> Built:
    """What is below `root` now."""
    writer = Writer(root, None)
    return Built(
        {key: writer.encode(value, key) for key, value in attributes(root)}, writer.objects
    )


def take(root: nn.Module, built: Built) -> tuple[Tensors, Values]:
    """The attributes of all modules below `root` that are not as they were when it was built.

    Raises StateError for the first that cannot be kept.
    """
    writer, values = Writer(root, built), {}
    for key, value in attributes(root):
        before = len(writer.tensors)
        encoded = writer.encode(value, key)
        if len(writer.tensors) > before or encoded != built.values.get(key):
            values[key] = encoded
    return writer.tensors, values


def copies(root: nn.Module) -> Tensors:
    """The state of a module as copies; of a module that says it never writes into its tensors, these."""
    whole = {
        id(tensor)
        for module in root.modules()
        if not getattr(module, "writes_in_place", True)
        for tensor in module.buffers(recurse=False)
    }
    state = root.state_dict(keep_vars=True).items()
    return {name: t.detach() if id(t) in whole else t.detach().clone() for name, t in state}


def take_tensors(root: nn.Module) -> Tensors:
    """All parameters and buffers below `root`, also those that are not persistent."""
    return {
        f"{path}:{name}": tensor.detach()
        for path, module in root.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }


def put_tensors(root: nn.Module, tensors: Tensors) -> None:
    """Put what `take_tensors` gave into modules of the same structure; shapes may differ."""
    modules = dict(root.named_modules())
    for key, tensor in tensors.items():
        path, _, name = key.partition(":")
        if path not in modules or ":" in name:
            continue  # belongs to an attribute
        owner = modules[path]
        parameter = owner._parameters.get(name)
        now = owner._buffers.get(name) if parameter is None else parameter
        if now is None:
            owner.register_buffer(name, tensor, persistent=False)
        elif now.shape == tensor.shape:
            # In place: a product's last bits depend on how its factors lie in memory.
            now.data.copy_(tensor)
        else:
            now.data = tensor.to(now.device)  # of its type: a memory takes that of its first input


def attributes(root: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and value of each attribute of a module below `root` that is not torch's or the framework's."""
    for path, module in root.named_modules():
        left_out = MODULES_OWN | set(getattr(module, "transient", ()))
        for name, value in vars(module).items():
            if path != FRAMEWORKS and name not in left_out:
                yield f"{path}:{name}", value


class Writer:
    """Values as JSON knows them; their tensors, and the objects that it cannot know, beside it.

    built: what is accepted of such objects; None accepts all.
    """

    def __init__(self, root: nn.Module, built: Built | None) -> None:
        self.tensors: Tensors = {}
        self.objects: dict[str, Any] = {}
        self.built = built
        self.known = {id(part) for part in (*root.modules(), *root.parameters())}
        self.inside: list[int] = []  # objects that are being encoded

    def encode(self, value: Any, key: str) -> Any:
        """`value`, found at `key`: {kind: content}."""
        if type(value) in PLAIN:
            return {"value": value}
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            kind = "cpu" if value.device.type == "cpu" else "tensor"
            return self._tensor(value.detach(), key, kind)
        if isinstance(value, Generator):
            return self._tensor(value.get_state(), key, "generator")
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
            kind = "array" if isinstance(value, np.ndarray) else "number"
            return self._tensor(torch.from_numpy(np.array(value)), key, kind)
        if type(value) in SEQUENCES.values():
            items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            encoded = [self.encode(item, f"{key}:{i}") for i, item in enumerate(items)]
            return {type(value).__name__: encoded}
        if type(value) in MAPPINGS.values():
            return {type(value).__name__: self._pairs(value, key)}
        if isinstance(value, defaultdict):
            self._as_built(value, key)  # its factory
            return {"filled": self._pairs(value, key)}
        if isinstance(value, nn.Module) and id(value) not in self.known:
            return self._module(value, key)
        if may_change(value) and id(value) not in self.inside:
            return self._object(value, key)
        return self._as_built(value, key)

    def _pairs(self, value: dict[Any, Any], key: str) -> list[Any]:
        return [
            [self.encode(k, f"{key}:{i}:key"), self.encode(v, f"{key}:{i}")]
            for i, (k, v) in enumerate(value.items())
        ]

    def _tensor(self, tensor: Tensor, key: str, kind: str) -> Any:
        self.tensors[f"{key}:"] = tensor
        return {kind: f"{key}:"}

    def _module(self, module: nn.Module, key: str) -> Any:
        """A module that torch does not find: its tensors go into the module that is there when it is read."""
        self._as_built(module, key)
        return {
            "module": [self._tensor(t, f"{key}:{n}", n) for n, t in module.state_dict().items()]
        }

    def _object(self, value: Any, key: str) -> Any:
        """An object with attributes: these go into the object that is there when it is read."""
        self._as_built(value, key)
        self.inside.append(id(value))
        content = {name: self.encode(own, f"{key}:{name}") for name, own in vars(value).items()}
        self.inside.pop()
        return {"object": content}

    def _as_built(self, value: Any, key: str) -> Any:
        """What can only be kept by being there again; a StateError if it has come later, or may change."""
        if self.built is None:
            self.objects[key] = value
            return {"built": None}
        known = key.startswith(NETWORK) or is_fixed(value) or may_change(value)
        if self.built.objects.get(key) is value and (known or isinstance(value, defaultdict)):
            return {"built": None}
        name = key.partition(":")[2].partition(":")[0]
        raise StateError(
            f"{key.replace(':', '.')} holds {_described(value)}, which cannot be saved. What survives are "
            "numbers, strings, tensors, arrays, torch generators, and lists, tuples, dicts and sets of them; "
            "modules and parameters as attributes of their own (or in nn.ModuleList, nn.ParameterList). If "
            f"it need not survive, say so in the class: transient = ('{name}',)."
        )


def is_fixed(value: Any) -> bool:
    """Whether it cannot change: a class, a function, a frozen dataclass …; or a module, which torch finds."""
    return isinstance(value, FIXED) or _is_frozen(value)


def may_change(value: Any) -> bool:
    """Whether it is an object of some class of Python's, with attributes that tell all about it."""
    if isinstance(value, (*FIXED, *HIDDEN)) or _is_frozen(value):
        return False
    return type(value).__module__ != "builtins" and hasattr(value, "__dict__")


def _is_frozen(value: Any) -> bool:
    parameters = getattr(type(value), "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


def _described(value: Any) -> str:
    kind = type(value)
    return (
        f"a {kind.__name__}"
        if kind.__module__ == "builtins"
        else f"a {kind.__module__}.{kind.__name__}"
    )
