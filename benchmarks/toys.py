"""What the safety programs run: a tiny transformer, a few dozen images, a configuration for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, open_dict
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

SIDE, CLASSES, TASKS = 8, 6, 3
DATA = "toy.npz"


@register_model
def toy_vit(num_classes: int = 0, img_size: int = SIDE, **more: Any) -> VisionTransformer:
    """Two blocks of width 16 over 4 patches of an 8 × 8 image: about 7,000 parameters."""
    sizes = {"img_size": img_size, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    module = VisionTransformer(**sizes, num_classes=num_classes)
    module.pretrained_cfg = {
        "input_size": (3, SIDE, SIDE),
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "classifier": "head",
    }
    return module


def pixels(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 N × 8 × 8 × 3 and int64 N: each class has its own pattern, plus noise."""
    patterns = np.random.default_rng(7).integers(0, 256, (CLASSES, SIDE, SIDE, 3))
    labels = np.arange(count, dtype=np.int64) % CLASSES
    noise = np.random.default_rng(seed).normal(0, 40, (count, SIDE, SIDE, 3))
    return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels


def save_pixels(file: Path) -> None:
    """A data set as `stream=arrays` takes it."""
    images, labels = pixels()
    test_images, test_labels = pixels(30, seed=1)
    np.savez(file, images=images, labels=labels, test_images=test_images, test_labels=test_labels)


def compose(*overrides: str) -> DictConfig:
    """A run on `toy.npz` in the current folder, as the command line composes it."""
    torch.set_num_threads(1)
    small = ["backbone=timm", "backbone.name=toy_vit", "backbone.pretrained=false"]
    small += ["stream=arrays", f"stream.file={DATA}", f"stream.tasks={TASKS}"]
    small += ["trainer.device=cpu", "trainer.epochs=2", "trainer.batch_size=8"]
    small += ["logger=[files]", "logger.files.report=false", "output=runs"]
    small += ["strategy=naive"] if not any(o.startswith("strategy=") for o in overrides) else []
    with hydra.initialize_config_module("configs", version_base="1.3"):
        cfg = hydra.compose("config", [*small, *overrides])
    strategy = next((o.split("=")[1] for o in overrides if o.startswith("strategy=")), "naive")
    with open_dict(cfg):
        names = {"stream": "toy", "strategy": strategy, "backbone": "toy_vit"}
        cfg.merge_with({"names": names})
    return cfg
