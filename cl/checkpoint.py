"""Tensors on disk: written to the side and renamed, and read back without executing anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cl.errors import WeightsError


def save_module(module: nn.Module, file: Path) -> None:
    """Write all parameters and buffers of `module` as safetensors."""
    save_tensors(module.state_dict(), file)


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors as safetensors; an earlier file is replaced only when the new one is complete."""
    beside = file.with_name(f"{file.name}.partial")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, beside
    )
    _replace(beside, file)


def save_json(content: Any, file: Path) -> None:
    """Write `content` as JSON, in the same safe way."""
    beside = file.with_name(f"{file.name}.partial")
    beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _replace(beside, file)


def load_json(file: Path) -> Any:
    """Read a JSON file; WeightsError if it is missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing.") from None
    except ValueError as error:
        raise WeightsError(f"{file} is damaged: {error}.") from None


def load_module(module: nn.Module, file: Path) -> None:
    """Read what `save_module` wrote into a module of the same structure.

    Tensors that have grown since the module was made (a head with more rows, another frozen adapter)
    take the stored shape; buffers that came into being later are added. WeightsError names what does
    not fit.
    """
    try:
        stored = load_file(file)
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing.") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} is damaged: {error}.") from None
    missing = module.state_dict().keys() - stored.keys()
    if missing:
        raise WeightsError(f"{file} lacks {', '.join(sorted(missing)[:5])}.")
    for name, tensor in stored.items():
        path, _, leaf = name.rpartition(".")
        try:
            owner = module.get_submodule(path)
        except AttributeError:
            raise WeightsError(f"{file}: this learner has no {path} (for {name}).") from None
        parameter = owner._parameters.get(leaf)
        if parameter is None:
            owner.register_buffer(leaf, tensor)
        else:
            parameter.data = tensor.to(parameter.dtype)


def _replace(beside: Path, file: Path) -> None:
    with beside.open("rb") as written:
        os.fsync(written.fileno())
    beside.replace(file)
