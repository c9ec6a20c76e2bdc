"""The folder of a run: made, locked, and its checkpoints found."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl.checkpoint import (
    check_format,
    check_seal,
    flush,
    load_json,
    save_json,
    seal,
    write_unless_there,
)
from cl.config import Config
from cl.errors import ConfigurationError, PalimpsestError, WeightsError, require
from cl.stored import as_config, load_yaml

KEPT_CHECKPOINTS = 2
FORMAT = 1
IDENTITY = "run.json"


def runs_folder(cfg: DictConfig, names: Mapping[str, str]) -> Path:
    """Where the runs of these names are: `<output>/<stream>/<strategy>/<backbone>`."""
    return Path(cfg.output) / names["stream"] / names["strategy"] / names["backbone"]


def create_run_folder(cfg: DictConfig, names: dict[str, str]) -> Path:
    """Make `<output>/<stream>/<strategy>/<backbone>/<date-time>-seed<seed>`, never an existing one."""
    parent = runs_folder(cfg, names)
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-seed{cfg.seed}"
    try:
        for attempt in range(1000):
            folder = parent / (f"{stem}-{attempt}" if attempt else stem)
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise ConfigurationError(
            f"output={cfg.output}: cannot write there ({error}). Give another folder: output=…"
        ) from None
    raise PalimpsestError(f"{parent} holds a thousand runs of this second.")


def load_run_config(folder: Path) -> DictConfig:
    """The configuration of the run in `folder`, with its types checked and nothing in it to resolve."""
    file = folder / "config.yaml"
    if not file.exists():
        raise ConfigurationError(
            f"resume={folder}: there is no config.yaml, so this is no run folder."
        )
    cfg = as_config(load_yaml(file, ConfigurationError), file)
    typed: Any = OmegaConf.structured(Config, flags={"struct": False})
    for section in map(str, cfg):
        try:
            typed = OmegaConf.merge(typed, OmegaConf.masked_copy(cfg, [section]))
        except OmegaConfBaseException as error:
            key, what = error.full_key or section, str(error).splitlines()[0]
            raise ConfigurationError(f"{file} is damaged: {key}: {what}") from None
    assert isinstance(typed, DictConfig)
    for key in sorted(OmegaConf.missing_keys(typed)):  # arguments may be: they were not given
        require(
            key.split(".")[0] in ("stream", "strategy", "plugin", "metric", "logger")
            and "." in key,
            f"{file} is damaged: {key} is missing.",
        )
    return typed


def save_run_config(cfg: DictConfig, folder: Path) -> None:
    """Write the resolved configuration of the run in `folder`, unless it is there."""
    write_unless_there(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))


def create_run_id() -> str:
    """A random id for a new run; of the system's randomness, so that no seed is touched."""
    return uuid.uuid4().hex


def save_run_id(run_id: str, folder: Path) -> None:
    """Write the id of the run into its folder, unless it is there."""
    if not (folder / IDENTITY).exists() or load_run_id(folder) != run_id:
        save_json({"format": FORMAT, "id": run_id}, folder / IDENTITY)


def load_run_id(folder: Path) -> str | None:
    """The id of the run in `folder`; None if it is of a version that gave none. WeightsError if damaged."""
    file = folder / IDENTITY
    if not file.exists():
        return None
    content = load_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("id"), str):
        raise WeightsError(f"{file} is damaged: it must hold the id of the run.")
    check_format(content, FORMAT, file)
    run_id: str = content["id"]
    return run_id


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep other processes from running in `folder`; the lock goes with the process, however it ends."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise ConfigurationError(
            f"{folder} is in use by another process. Wait for it, or stop it."
        ) from None


class Checkpoints:
    """The checkpoints of a run, each a folder named by the experiences learnt and the steps since.

    `000003` is between two experiences, `000003-000000120` in the middle of the fourth. Each is written to
    the side and renamed when it is complete, and the last two of both kinds are kept.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def between(self) -> list[Path]:
        """Those between two experiences, oldest first."""
        return [path for path in self._complete() if "-" not in path.name]

    def midway(self, experiences: int) -> list[Path]:
        """Those in the middle of the experience after so many, oldest first."""
        return [path for path in self._complete() if path.name.startswith(f"{experiences:06d}-")]

    @contextmanager
    def writing(self, experiences: int, step: int | None = None) -> Iterator[Path]:
        """A folder to write a checkpoint into; when it is left, the checkpoint is there and old ones go."""
        name = f"{experiences:06d}" if step is None else f"{experiences:06d}-{step:09d}"
        final, partial = self.folder / name, self.folder / f"{name}.partial"
        for remnant in self.folder.glob("*.partial"):  # of a run that was killed
            shutil.rmtree(remnant, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        seal(partial)
        check_seal(partial)
        shutil.rmtree(final, ignore_errors=True)  # damaged, or the run went back behind it
        partial.rename(final)
        flush(self.folder)
        self._forget(experiences)

    def _complete(self) -> list[Path]:
        found = self.folder.glob("*")
        return sorted(p for p in found if p.is_dir() and re.fullmatch(r"\d{6,}(-\d{9,})?", p.name))

    def _forget(self, experiences: int) -> None:
        old = self.between()[:-KEPT_CHECKPOINTS] + self.midway(experiences)[:-KEPT_CHECKPOINTS]
        kept = {path.name[:6] for path in self.between()[-KEPT_CHECKPOINTS:]} | {
            f"{experiences:06d}"
        }
        old += [p for p in self._complete() if "-" in p.name and p.name[:6] not in kept]
        for path in set(old):
            shutil.rmtree(path, ignore_errors=True)
