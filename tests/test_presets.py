"""Every preset `+experiment=…` composes, and its strategy can be built, without data and weights."""

from __future__ import annotations

import re
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig

import configs
from cl.cli import check
from cl.config import TrainerConfig, as_object
from cl.instantiate import build
from cl.strategy import Strategy

FOLDER = Path(configs.__file__).parent / "experiment"
PRESETS = sorted(file.stem for file in FOLDER.glob("*.yaml"))
CLASSES = {"cifar100": 100, "cub200": 200, "imagenet_r": 200, "imagenet_a": 200, "vtab": 50}

every_preset = pytest.mark.parametrize("name", PRESETS)


def composed(name: str) -> DictConfig:
    with hydra.initialize_config_module("configs", version_base="1.3"):
        return hydra.compose("config", [f"+experiment={name}"])


def test_there_are_presets() -> None:
    assert {"mos_cifar100_inc5", "ranpac_cifar100_inc10", "l2p_imagenet_r_inc20"} <= set(PRESETS)


@every_preset
def test_it_composes_and_builds(name: str) -> None:
    check([f"+experiment={name}"])
    cfg = composed(name)
    assert isinstance(build(cfg.strategy, "strategy"), Strategy)
    as_object(cfg.trainer, TrainerConfig)
    method, dataset, increment = re.fullmatch(
        r"(\w+?)_(cifar100|cub200|imagenet_[ra]|vtab)_inc(\d+)", name
    ).groups()  # type: ignore[union-attr]
    assert method.startswith(str(cfg.strategy._target_).split(".")[1])
    assert dataset in (cfg.stream.dataset.partition("@")[0])
    assert CLASSES[dataset] == cfg.stream.tasks * int(increment), (
        "the name says the classes of a task"
    )


@every_preset
def test_the_command_stands_at_the_top_and_nothing_is_said_twice(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    first, second, source = text.splitlines()[:3]
    assert first == "# @package _global_"
    assert second == f"# python run.py +experiment={name}"
    assert source.startswith("# "), "where the numbers are from"


@every_preset
def test_its_values_win_over_the_strategy_s(name: str) -> None:
    cfg = composed(name)
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    for key in ("epochs", "batch_size", "lr", "weight_decay"):
        found = re.search(rf"^  {key}: (\S+)$", text, re.MULTILINE)
        if found:
            assert float(cfg.trainer[key]) == float(found[1])


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("mos_")])
def test_mos_aligns_on_five_batches_with_the_decay_of_the_training(name: str) -> None:
    cfg = composed(name)
    assert cfg.strategy.alignment_samples == 5 * cfg.trainer.batch_size
    assert cfg.strategy.alignment_decay == cfg.trainer.weight_decay


def test_the_command_line_overrides_a_preset() -> None:
    with hydra.initialize_config_module("configs", version_base="1.3"):
        cfg = hydra.compose(
            "config", ["+experiment=mos_cifar100_inc5", "trainer.epochs=1", "backbone=nano"]
        )
    assert (cfg.trainer.epochs, cfg.trainer.lr) == (1, 0.03)
    assert cfg.backbone.name.startswith("palimpsest_nano")
