"""Configurations, streams and networks of the speed programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import timm
import torch
from omegaconf import DictConfig, open_dict
from timm.models import register_model
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from cl.data import ArrayDataset
from cl.stream import Stream, class_incremental

CNN = "benchmark_cnn"


def images(count: int, classes: int, side: int = 32, seed: int = 0) -> ArrayDataset:
    """Random images: what is in them does not change the time they take."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return ArrayDataset.of(pixels, np.arange(count, dtype=np.int64) % classes)


def stream(count: int, tasks: int = 1, classes: int = 10, side: int = 32) -> Stream:
    """A class-incremental stream of `count` training images in all, and a fifth as many test images."""
    train, test = images(count, classes, side), images(max(classes, count // 5), classes, side, 1)
    names = [str(label) for label in range(classes)]
    return class_incremental("random", train, test, names, tasks, range(classes))


def compose(*overrides: str) -> DictConfig:
    """A configuration as the command line makes it: on the CPU, one epoch, batches of 64, AdamW."""
    usual = ["trainer.device=cpu", "trainer.epochs=1", "trainer.batch_size=64", "logger=[]"]
    usual += ["trainer.optimizer=adamw", "trainer.lr=1e-3", "trainer.weight_decay=0"]
    with hydra.initialize_config_module("configs", version_base="1.3"):
        cfg = hydra.compose("config", [*usual, *overrides])
    names = {"stream": "random", "strategy": "benchmark", "backbone": "benchmark"}
    with open_dict(cfg):
        cfg.merge_with({"names": names})
    return cfg


class SmallCNN(nn.Module):
    """Three convolutions and a mean: so little work that the loop around it counts."""

    def __init__(self, num_classes: int = 0, **kwargs: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, wider in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(64, num_classes) if num_classes else nn.Identity()
        self.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}

    def forward(self, x: Tensor) -> Tensor:
        """B × 3 × S × S to B × 64, or to logits."""
        logits: Tensor = self.head(self.layers(x).mean((2, 3)))
        return logits


@register_model
def benchmark_cnn(pretrained: bool = False, **kwargs: Any) -> SmallCNN:
    """Known to timm under this name, so that `backbone.name=benchmark_cnn` finds it."""
    return SmallCNN(**kwargs)


def network(name: str, classes: int, **options: Any) -> nn.Module:
    """A timm model with a linear head that starts at zero, as ours do."""
    model = timm.create_model(name, num_classes=classes, **options)
    head = model.get_submodule("head")
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    assert isinstance(model, nn.Module)
    return model


def tensors(data: ArrayDataset) -> tuple[Tensor, Tensor]:
    """uint8 N × H × W × C and int64 N."""
    pixels, labels = data.take(np.arange(len(data)))
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def crop_and_flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """What a hand-written loop does: shift by up to 4 pixels, mirror half. uint8 B × H × W × C.

    generator: on the device of the images.
    """
    count, side, on = len(pixels), pixels.shape[1], pixels.device
    padded = nn.functional.pad(pixels, (0, 0, 4, 4, 4, 4))
    shift = torch.randint(0, 9, (2, count, 1), generator=generator, device=on)
    mirrored = torch.rand(count, 1, generator=generator, device=on) < 0.5
    place = torch.arange(side, device=on).expand(count, side)
    rows, columns = shift[0] + place, shift[1] + torch.where(mirrored, place.flip(1), place)
    return padded[
        torch.arange(count, device=on)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
