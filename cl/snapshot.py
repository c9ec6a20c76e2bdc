"""Everything that changes while an experience is learnt, as tensors and plain values, and back again.

A checkpoint between two experiences holds what `state_dict` names. In the middle of one a method also has
counters, generators and buffers that last only for it. On the way back the hooks before the training have
run again, so that every module is there; then these values are put in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

Tensors = dict[str, Tensor]

NOT_KEPT = ("training", "dump_patches", "seed", "device", "batch_size", "augmentation")


def take(root: nn.Module) -> tuple[Tensors, dict[str, Any]]:
    """All parameters and buffers below `root`, and the other attributes that are plain values."""
    tensors: Tensors = {}
    values: dict[str, Any] = {}
    for path, module in root.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                tensors[f"{path}:{name}"] = tensor.detach()
        for name, value in vars(module).items():
            if name.startswith("_") or name in NOT_KEPT or not is_plain(value):
                continue
            values[f"{path}:{name}"] = encode(value, f"{path}:{name}", tensors)
    return tensors, values


def put(root: nn.Module, tensors: Tensors, values: dict[str, Any]) -> None:
    """Put what `take` gave into modules of the same structure; shapes may differ."""
    modules = dict(root.named_modules())
    for key, tensor in tensors.items():
        path, _, name = key.partition(":")
        if path not in modules or ":" in name:
            continue  # belongs to a value
        own = modules[path]
        now = own._parameters.get(name) if name in own._parameters else own._buffers.get(name)
        if now is None:
            own.register_buffer(name, tensor, persistent=False)
        elif now.shape == tensor.shape:
            now.data.copy_(
                tensor
            )  # in place: a product's last bits depend on how its factors lie in memory
        else:
            now.data = tensor.to(
                now.device
            )  # with its type: a memory takes that of its first input
    for key, value in values.items():
        path, _, name = key.partition(":")
        setattr(modules[path], name, decode(value, getattr(modules[path], name, None), tensors))


def is_plain(value: Any) -> bool:
    """Whether `value` is made of numbers, texts, tensors and generators; a parameter has another owner."""
    if isinstance(value, list | tuple):
        return all(is_plain(each) for each in value)
    if isinstance(value, dict):
        return all(isinstance(k, str) and is_plain(each) for k, each in value.items())
    if isinstance(value, nn.Parameter):
        return False
    return value is None or isinstance(value, bool | int | float | str | Tensor | Generator)


def encode(value: Any, key: str, tensors: Tensors) -> Any:
    """`value` as JSON knows it; its tensors go into `tensors` under names that begin with `key`."""
    if isinstance(value, Tensor | Generator):
        tensors[f"{key}:"] = value.get_state() if isinstance(value, Generator) else value.detach()
        return {"tensor" if isinstance(value, Tensor) else "generator": f"{key}:"}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [encode(each, f"{key}:{i}", tensors) for i, each in enumerate(value)]}
    if isinstance(value, dict):
        return {"dict": {k: encode(each, f"{key}:{k}", tensors) for k, each in value.items()}}
    return {"value": value}


def decode(found: dict[str, Any], present: Any, tensors: Tensors) -> Any:
    """The value again. present: what is there now; a generator is set, not replaced."""
    ((kind, content),) = found.items()
    if kind == "tensor":
        tensor = tensors[content]
        return tensor.to(present.device) if isinstance(present, Tensor) else tensor
    if kind == "generator":
        generator = present if isinstance(present, Generator) else torch.Generator()
        generator.set_state(tensors[content])
        return generator
    if kind in ("list", "tuple"):
        there = list(present) if isinstance(present, list | tuple) else []
        there += [None] * (len(content) - len(there))
        made = [decode(each, old, tensors) for each, old in zip(content, there, strict=False)]
        return tuple(made) if kind == "tuple" else made
    if kind == "dict":
        known = present if isinstance(present, dict) else {}
        return {k: decode(each, known.get(k), tensors) for k, each in content.items()}
    return content
