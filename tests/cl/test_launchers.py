"""Sweeps on other machines: the presets are what their launchers take, and one of them really runs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

import configs

ROOT = Path(configs.__file__).parent.parent


def launcher(*overrides: str) -> DictConfig:
    with initialize_config_module("configs", version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    made = cfg.hydra.launcher
    assert isinstance(made, DictConfig)
    return made


def test_slurm() -> None:
    """submitit's own schema refuses a key that it does not know."""
    made = launcher("hydra/launcher=slurm", "hydra.launcher.partition=gpu")
    assert made._target_.endswith("SlurmLauncher")
    assert (made.partition, made.gpus_per_node, made.timeout_min) == ("gpu", 1, 720)
    with pytest.raises(Exception, match="partitoin"):
        launcher("hydra/launcher=slurm", "hydra.launcher.partitoin=gpu")


@dataclasses.dataclass
class RayFields:
    """What Hydra's Ray launcher 1.2 calls `ray`."""

    init: dict[str, Any] = dataclasses.field(default_factory=lambda: {"address": None})
    remote: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class RayLauncherFields:
    """The schema that the launcher registers; Ray itself is too large to install for this."""

    _target_: str = "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"
    ray: RayFields = dataclasses.field(default_factory=RayFields)


def test_ray() -> None:
    ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherFields)
    made = launcher("hydra/launcher=ray_cluster", "hydra.launcher.ray.remote.num_gpus=0.5")
    assert made._target_.endswith("RayLauncher")
    assert made.ray.init == {"address": "auto"}
    assert made.ray.remote == {"num_cpus": 4, "num_gpus": 0.5}


def test_submitits_local_executor_runs_a_sweep(tmp_path: Path) -> None:
    """Each run in a process of its own, as on a cluster; one of them fails."""
    arguments = ["-m", "hydra/launcher=submitit_local", "strategy=simplecil", "stream.tasks=2,11"]
    arguments += ["backbone.image_size=8", "logger=[files]", "logger.files.report=false"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1, result.stderr
    assert "1 of 2 runs failed" in result.stderr
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    jobs = [json.loads(file.read_text()) for file in sorted((sweep / "jobs").iterdir())]
    assert [job["error"] is None for job in jobs] == [True, False]
    assert (sweep / jobs[0]["folder"] / "summary.json").exists()
