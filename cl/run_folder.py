"""The folder of a run: made, locked, and its checkpoints found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl.checkpoint import check_seal
from cl.config import Config
from cl.errors import ConfigurationError, PalimpsestError, require
from cl.stored import as_config, load_yaml

KEPT_CHECKPOINTS = 2


def create_run_folder(cfg: DictConfig, names: dict[str, str]) -> Path:
    """Make `<output>/<stream>/<strategy>/<backbone>/<date-time>-seed<seed>`, never an existing one."""
    parent = Path(cfg.output) / names["stream"] / names["strategy"] / names["backbone"]
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
            key.split(".")[0] in ("stream", "strategy", "plugin", "logger") and "." in key,
            f"{file} is damaged: {key} is missing.",
        )
    return typed


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
        check_seal(partial)
        shutil.rmtree(final, ignore_errors=True)  # damaged, or the run went back behind it
        partial.rename(final)
        self._forget(experiences)

    def _complete(self) -> list[Path]:
        found = self.folder.glob("*")
        return sorted(path for path in found if path.is_dir() and path.suffix != ".partial")

    def _forget(self, experiences: int) -> None:
        old = self.between()[:-KEPT_CHECKPOINTS] + self.midway(experiences)[:-KEPT_CHECKPOINTS]
        kept = {path.name[:6] for path in self.between()[-KEPT_CHECKPOINTS:]} | {
            f"{experiences:06d}"
        }
        old += [p for p in self._complete() if "-" in p.name and p.name[:6] not in kept]
        for path in set(old):
            shutil.rmtree(path, ignore_errors=True)
