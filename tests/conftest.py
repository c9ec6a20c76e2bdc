"""What the tests share: small configurations, a toy stream, and where the real data are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from cl.data import ArrayDataset
from cl.stream import Stream, class_incremental

torch.set_num_threads(1)  # toy tensors: a second thread only costs

REAL_DATA = (
    Path(os.environ.get("CL_DATA_DIR", "data"), "cifar100").exists()
    and Path(
        os.environ.get("CL_WEIGHTS_DIR", "weights"), "vit_tiny_patch16_224.safetensors"
    ).exists()
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on real data run wherever the data are; elsewhere the reason for skipping is shown.

    With REQUIRE_REAL_DATA in the environment nothing runs without them.
    """
    if not REAL_DATA:
        reason = (
            "CL_DATA_DIR/cifar100 or CL_WEIGHTS_DIR/vit_tiny_patch16_224.safetensors is missing"
        )
        if os.environ.get("REQUIRE_REAL_DATA"):
            raise pytest.UsageError(f"REQUIRE_REAL_DATA is set, but {reason}.")
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(pytest.mark.skip(reason=reason))


def toy_images(count: int, classes: int, seed: int) -> ArrayDataset:
    """Images of 8 × 8 pixels: each class has its own colour pattern, plus noise."""
    generator = np.random.default_rng(seed)
    patterns = np.random.default_rng(7).integers(0, 256, (classes, 8, 8, 3))
    labels = np.arange(count, dtype=np.int64) % classes
    noise = generator.normal(0, 25, (count, 8, 8, 3))
    images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
    return ArrayDataset.of(images, labels)


def toy_stream(
    tasks: int = 2, classes: int = 4, images: int = 48, order: Sequence[int] | None = None
) -> Stream:
    """A class-incremental stream of a few dozen toy images. order: of the classes, if not 0, 1, 2 …"""
    names = [f"class {index}" for index in range(classes)]
    train, test = toy_images(images, classes, 0), toy_images(images // 2, classes, 1)
    return class_incremental("toy", train, test, names, tasks, order or range(classes))


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with hydra.initialize_config_module("configs", version_base="1.3"):
        return hydra.compose("config", list(overrides))


def composed(*overrides: str) -> DictConfig:
    """The configuration that these overrides give. Hydra takes its time, so it is asked once for each."""
    return deepcopy(_composed(overrides))


def small_config(folder: Path, *overrides: str, **strategy: Any) -> DictConfig:
    """A configuration as of the command line: a tiny random backbone, two epochs. Runs go into `folder`."""
    small = ["backbone.image_size=8", "backbone.pretrained=false", "trainer.device=cpu"]
    small += ["trainer.epochs=2", "trainer.batch_size=8", "output=elsewhere"]
    small += ["stream=custom", "stream._target_=tests.conftest.toy_stream"]
    cfg = composed(*small, *overrides)
    if cfg.output == "elsewhere":
        cfg.output = f"{folder}/runs"
    with open_dict(cfg):
        cfg.merge_with({"names": {"stream": "toy", "strategy": "test", "backbone": "nano"}})
        cfg.strategy = OmegaConf.merge(cfg.strategy, strategy)
    return cfg


Compose = Callable[..., DictConfig]


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Composes a small configuration, whose runs go into the folder of the test."""
    return partial(small_config, tmp_path)
