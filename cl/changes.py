"""What of a configuration may be changed when a run goes on, and what was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from cl.config import HARMLESS, LATER, covered
from cl.errors import ConfigurationError
from cl.loggers.base import flatten

BESIDE = ("output", "resume", "trust")
"""Keys of a configuration that say nothing of the run itself."""

SEARCHED = ("auto", "latest")
"""Values of `resume` that name no folder."""

Differences = dict[str, tuple[Any, Any]]
"""Two values by dotted key."""


def changed(cfg: DictConfig, changes: Mapping[str, Any], folder: Path) -> DictConfig:
    """The configuration of the run in `folder` with what may be changed; ConfigurationError for all else.

    changes: values, or whole sections, by dotted key. A logger that the run does not have has nothing to
    change.
    """
    wanted = OmegaConf.create(OmegaConf.to_container(cfg))
    assert isinstance(wanted, DictConfig)
    for key, value in changes.items():
        section = key.rpartition(".")[0]
        if not covered(section, ["logger"]) or OmegaConf.select(wanted, section) is not None:
            OmegaConf.update(wanted, key, value, merge=False, force_add=True)
    refused = {
        key: pair for key, pair in differences(plain(cfg), plain(wanted)).items() if not _may(key)
    }
    if refused:
        raise ConfigurationError(
            f"resume={folder}: this run cannot go on with another {_listed(refused)}. What was learnt was "
            f"learnt with the old. Leave it out to go on; leave out resume= to begin a new run."
        )
    return wanted


def changes_since(recorded: Any, cfg: DictConfig, checkpoint: Path) -> Differences:
    """What differs between the configuration of a checkpoint and `cfg`; ConfigurationError if it may not."""
    now = {key: value for key, value in plain(cfg).items() if key in (recorded or {})}
    found = differences(recorded or {}, now)
    found = {key: pair for key, pair in found.items() if not covered(key, BESIDE)}
    if refused := {key: pair for key, pair in found.items() if not _may(key)}:
        raise ConfigurationError(
            f"{checkpoint.parents[1] / 'config.yaml'} has another {_listed(refused)}; the first value is "
            f"that of checkpoint {checkpoint.name}. Put it back to go on, or begin a new run."
        )
    return found


def noted(changes: Differences, experience: int, step: int = 0) -> list[dict[str, Any]]:
    """The changes as they are written down: from when on they hold."""
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    where = {"experience": experience, "step": step, "date": date}
    return [{"key": k, "before": old, "after": new, **where} for k, (old, new) in changes.items()]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Differences:
    """Where two configurations, as plain containers, do not say the same."""
    a, b = flatten(dict(before)), flatten(dict(after))
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    return {key: (a.get(key), b.get(key)) for key in keys}


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as JSON knows it."""
    found: dict[str, Any] = json.loads(
        json.dumps(OmegaConf.to_container(cfg, resolve=True), default=str)
    )
    return found


def _may(key: str) -> bool:
    return covered(key, (*HARMLESS, *LATER))


def _listed(differences: Differences) -> str:
    return ", ".join(f"{key} ({old}, now {new})" for key, (old, new) in differences.items())


def typed(cfg: DictConfig) -> dict[str, Any]:
    """What the command line says, by key: a value, or a section of `cfg` of which a preset was chosen."""
    if not HydraConfig.initialized():
        return {}
    found: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(
        list(HydraConfig.get().overrides.task)
    ):
        key = override.key_or_group
        if key in ("resume", "trust") or (key == "output" and cfg.resume in SEARCHED):
            continue
        keys = [key] if "." in key or key in cfg else ["strategy", "stream", "backbone", "trainer"]
        for each in keys:
            value = OmegaConf.select(cfg, each)
            is_section = OmegaConf.is_config(value)
            found[each] = OmegaConf.to_container(value, resolve=True) if is_section else value
    return {**found, **_following(found, cfg)}


def _following(keys: Iterable[str], cfg: DictConfig) -> dict[str, Any]:
    """The values that `cfg` takes from those of `keys`: the console is quiet when `trainer.quiet` is true."""
    raw: Any = OmegaConf.to_container(cfg)
    sources = {f"${{{key}}}" for key in keys}
    follow = [key for key, value in flatten(raw).items() if str(value) in sources]
    return {key: OmegaConf.select(cfg, key) for key in follow}
