"""Tensors on disk: written to the side and renamed, and read back without executing anything."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cl import stored
from cl.errors import WeightsError

SEAL = "checksums.json"


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
    replace_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def replace_text(file: Path, text: str) -> None:
    """Write a text file, in the same safe way."""
    beside = file.with_name(f"{file.name}.partial")
    beside.write_text(text, encoding="utf-8")
    _replace(beside, file)


def load_json(file: Path) -> Any:
    """Read a JSON file; WeightsError if it is missing or damaged."""
    return stored.load_json(file, WeightsError)


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file; WeightsError if it is missing or damaged."""
    try:
        return load_file(file)
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing.") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} is damaged: {error}.") from None


def seal(folder: Path) -> None:
    """Write the checksums of the files in `folder` beside them."""
    save_json({file.name: checksum(file) for file in _sealed(folder)}, folder / SEAL)


def check_seal(folder: Path) -> None:
    """Raise WeightsError unless the files in `folder` are as they were when it was sealed."""
    for name, expected in load_json(folder / SEAL).items():
        file = folder / name
        if not file.exists():
            raise WeightsError(f"{file} is missing.")
        if checksum(file) != expected:
            raise WeightsError(f"{file} is damaged: its checksum is not that in {SEAL}.")


def checksum(file: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sealed(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name != SEAL)


def load_module(module: nn.Module, file: Path) -> None:
    """Read what `save_module` wrote into a module of the same structure.

    Tensors that have grown since the module was made (a head with more rows, another frozen adapter)
    take the stored shape; buffers that came into being later are added. WeightsError names what does
    not fit.
    """
    load_state(module, load_tensors(file), file)


def load_state(module: nn.Module, stored: Mapping[str, Tensor], file: object) -> None:
    """As `load_module`, of tensors that are in memory. file: what errors call them."""
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
