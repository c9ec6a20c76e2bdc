"""Lightning Fabric: the device, the precision and the processes of a training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cl.config import TrainerConfig
from cl.errors import ConfigurationError


@contextmanager
def out_of_reach(package: str) -> Iterator[None]:
    """Within it the package counts as not installed, unless it has been imported already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


# Fabric imports torchmetrics, and all that this imports, only to look at the version of it for a detector of
# spikes in the loss, which is not used here; without torchmetrics Fabric does the same a second earlier.
with out_of_reach("torchmetrics"):
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

__all__ = ["Fabric", "create_fabric"]


def create_fabric(config: TrainerConfig) -> Fabric:
    """The Fabric that `trainer.device`, `devices`, `nodes`, `strategy` and `precision` describe.

    With several devices the command is started once for each of the others (not under torchrun or SLURM,
    which have done so).
    """
    kind, _, index = config.device.partition(":")
    precision: Any = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[config.precision]
    devices: Any = [int(index)] if index else config.devices
    # Not every step uses every parameter: prompts are chosen, heads have rows for other classes.
    ddp = DDPStrategy(find_unused_parameters=True)
    several = config.devices * config.nodes > 1
    strategy: Any = ddp if several or config.strategy == "ddp" else "auto"
    try:
        fabric = Fabric(
            accelerator=kind,
            devices=devices,
            num_nodes=config.nodes,
            precision=precision,
            strategy=strategy,
        )
        fabric.launch()
        return fabric
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise ConfigurationError(
            f"trainer.device={config.device}: {error} Use auto, cpu, cuda or cuda:0."
        ) from None
