"""Hydra makes its callbacks before every run and every `--help`, so that this one imports nothing slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepEnd(Callback):
    """Hydra calls it when all runs of a sweep are over."""

    def on_multirun_end(self, config: DictConfig, **more: Any) -> None:
        """List what failed, and compare the rest."""
        from cl import sweep

        sweep.end(Path(config.hydra.sweep.dir))
