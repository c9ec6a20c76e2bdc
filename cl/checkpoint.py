"""Files that must not be lost: written to the side, flushed, renamed; read without executing anything."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cl import stored
from cl.errors import WeightsError, explained

SEAL = "checksums.json"
TENSORS_BYTES = 1 << 42
INCOMING = ".incoming"
"""The folder, inside the one that is written, for new files until all of them are complete."""


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors as safetensors; an earlier file is replaced only when the new one is complete."""
    with replacing(file) as beside:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, beside
        )


def save_json(content: Any, file: Path) -> None:
    """Write `content` as JSON, in the same safe way."""
    replace_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def replace_text(file: Path, text: str) -> None:
    """Write a text file, in the same safe way."""
    with replacing(file) as beside:
        beside.write_text(text, encoding="utf-8")


def write_unless_there(file: Path, text: str) -> None:
    """Write a text file, in the same safe way, unless it is there with this very content."""
    content = text.encode()
    there = file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content
    if not there:
        replace_text(file, text)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A file to write instead of `file`; it takes its place when it is complete and on the disk.

    If the process is killed or the disk is full, `file` is what it was.
    """
    beside = file.with_name(f"{file.name}.partial")
    try:
        yield beside
        flush(beside)
        _replace(beside, file)
    except Exception:
        with suppress(OSError):
            beside.unlink()  # it takes room on a disk that may be full
        raise
    flush(file.parent)


@contextmanager
def replacing_together(folder: Path) -> Iterator[Path]:
    """A place to write files that shall replace those of the same names in `folder`, all of them or none.

    They are sealed when all are there. A kill before that leaves the old ones; after it, `settle` puts the
    new ones in place. Other files in `folder` stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settle(folder)
    partial = folder / f"{INCOMING}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        yield partial
        seal(partial)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(folder / INCOMING)
    flush(folder)
    settle(folder)


def settle(folder: Path) -> None:
    """Put the files of `replacing_together` in their places; a kill may have come between."""
    incoming = folder / INCOMING
    if not incoming.is_dir():
        return
    try:
        for file in incoming.iterdir():
            file.replace(folder / file.name)
        flush(folder)
        incoming.rmdir()
    except OSError as error:
        raise WeightsError(
            f"{folder} was being written when the process was killed, and {incoming} holds what is missing. "
            f"It cannot be moved to its place ({error}). Copy the folder to where you may write."
        ) from None


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folder
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_json(file: Path) -> Any:
    """Read a JSON file; WeightsError if it is missing or damaged."""
    return stored.load_json(file, WeightsError)


def check_format(content: Mapping[str, Any], newest: int, file: Path) -> None:
    """Raise WeightsError unless the `format` of a file is one that this version reads."""
    number: Any = content.get("format")
    if not is_count(number, least=1):
        raise WeightsError(f"{file} is damaged: format cannot be {str(number)[:40]!r}.")
    if number > newest:
        raise WeightsError(
            f"{file} was written by a newer version: its format is {number}, and this version reads up to "
            f"{newest}. Update: pip install -U palimpsest"
        )


def is_count(value: Any, least: int = 0) -> bool:
    """Whether `value` is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file; WeightsError if it is missing or damaged."""
    stored.require_file(file, TENSORS_BYTES, WeightsError)
    with explained(WeightsError, f"{file} is damaged"):
        return load_file(file)


def layout(tensors: Mapping[str, Tensor]) -> str:
    """A hash of the names, types and shapes of tensors."""
    told = [f"{name} {t.dtype} {tuple(t.shape)}" for name, t in sorted(tensors.items())]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def check_layout(tensors: Mapping[str, Tensor], expected: Any, folder: Path) -> None:
    """Raise WeightsError unless these are the tensors that were written there; None is of older versions."""
    if expected is not None and layout(tensors) != expected:
        raise WeightsError(f"{folder} is damaged: its tensors are not those that were written.")


def seal(folder: Path) -> None:
    """Write the checksums of the files in `folder` beside them."""
    save_json({file.name: checksum(file) for file in _sealed(folder)}, folder / SEAL)


def check_seal(folder: Path, required: Sequence[str] = ()) -> None:
    """Raise WeightsError unless the files in `folder` are as they were when it was sealed.

    required: the files that the seal must cover.
    """
    file, sums = folder / SEAL, load_json(folder / SEAL)
    if not isinstance(sums, dict) or not all(map(_is_checksum, sums.values())):
        raise WeightsError(f"{file} is damaged: it must hold a checksum for each file.")
    if lacking := sorted({*required} - sums.keys()):
        raise WeightsError(f"{file} is damaged: it does not cover {', '.join(lacking)}.")
    for name, expected in sums.items():
        if name in ("", ".", "..") or re.search(r"[/\\:\0]", name):
            raise WeightsError(f"{file} is damaged: {name!r} is no name of a file in this folder.")
        _check_size(folder / name)
        if checksum(folder / name) != expected:
            raise WeightsError(f"{folder / name} is damaged: its checksum is not that in {SEAL}.")


def _check_size(file: Path) -> None:
    """Raise WeightsError for a file of a size that cannot be right, whose checksum may take for ever."""
    small = file.suffix != ".safetensors"
    stored.require_file(file, stored.JSON_BYTES if small else TENSORS_BYTES, WeightsError)
    if not small:
        with explained(WeightsError, f"{file} is damaged"), safe_open(file, "pt"):
            pass  # its header says how large it is


def _is_checksum(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def checksum(file: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sealed(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name != SEAL)


def load_state(
    module: nn.Module, stored: Mapping[str, Tensor], file: object, closed: str | None = None
) -> None:
    """Put a stored state into a module of the same structure.

    Tensors that have grown since the module was made (a head with more rows, another frozen adapter)
    take the stored shape; empty buffers take any, and those that came into being later are added, but neither
    below the submodule `closed`. WeightsError names what does not fit, or is not a number. file: what it
    calls the state.
    """
    present = module.state_dict()
    missing = present.keys() - stored.keys()
    if missing:
        raise WeightsError(f"{file} lacks {', '.join(sorted(missing)[:5])}.")
    for name, tensor in stored.items():
        path, _, leaf = name.rpartition(".")
        try:
            owner = module.get_submodule(path)
        except AttributeError:
            raise WeightsError(f"{file}: this learner has no {path} (for {name}).") from None
        fixed = f"{name}.".startswith(f"{closed}.")
        if fixed and leaf not in owner._parameters | owner._buffers:
            raise WeightsError(f"{file}: this learner has no {name}.")
        parameter = owner._parameters.get(leaf)
        if name in present and (fixed or parameter is not None or present[name].numel()):
            check_grown(present[name], tensor, f"{file}: {name}")
        check_numbers(tensor, f"{file}: {name}", finite=parameter is not None)
        if parameter is None:
            owner.register_buffer(leaf, tensor)
        else:
            parameter.data = tensor


def check_grown(fresh: Tensor, stored: Tensor, what: str) -> None:
    """Raise WeightsError unless `stored` can be what `fresh` became: larger at most, of the same type."""
    fits = fresh.ndim == stored.ndim and fresh.dtype == stored.dtype
    if not fits or any(a > b for a, b in zip(fresh.shape, stored.shape, strict=True)):
        raise WeightsError(
            f"{what} is {stored.dtype} of shape {tuple(stored.shape)}, which does not fit "
            f"{fresh.dtype} of shape {tuple(fresh.shape)}."
        )


def check_numbers(tensor: Tensor, what: str, finite: bool = True) -> None:
    """Raise WeightsError if there is a NaN in `tensor`, or, if it must be finite, an infinity."""
    if bool((~tensor.isfinite()).any() if finite else tensor.isnan().any()):
        raise WeightsError(f"{what} holds what is no number (NaN or infinite).")


def _replace(beside: Path, file: Path) -> None:
    beside.replace(file)
