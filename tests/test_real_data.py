"""The main job on the real CIFAR-100 with a real pretrained backbone, on a subset."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from cl.data import ArrayDataset
from cl.experiment import Experiment
from cl.stream import Stream, class_incremental
from streams.cifar import split_cifar
from tests.conftest import Compose

pytestmark = pytest.mark.real_data


def small_cifar() -> Stream:
    """The first 5 classes of CIFAR-100, every fifth image: 500 for training, 100 for test."""
    stream = split_cifar(order_seed=None, tasks=20)
    train, test = (
        ArrayDataset(part.images, part.labels, part.rows[::5])
        for part in (stream.train[0], stream.test[0])
    )
    keep = [
        ArrayDataset.of(np.asarray(data.images[data.rows]), np.asarray(data.labels[data.rows]))
        for data in (train, test)
    ]
    return class_incremental("small_cifar", keep[0], keep[1], stream.class_names[:5], 5, range(5))


def reference_accuracy() -> float:
    """Nearest class mean with cosine similarity, written without any of our code but the data."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=1000, img_size=64).eval()
    state = load_file(Path(os.environ["CL_WEIGHTS_DIR"], "vit_tiny_patch16_224.safetensors"))
    grid = state["pos_embed"][:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(grid, (4, 4), mode="bicubic", antialias=True)
    flat = small.permute(0, 2, 3, 1).reshape(1, 16, 192)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], flat], dim=1)
    model.load_state_dict(state)
    model.reset_classifier(0)
    stream = small_cifar()

    def features(parts: tuple[ArrayDataset, ...]) -> tuple[np.ndarray, np.ndarray]:
        images = np.concatenate([data.take(np.arange(len(data)))[0] for data in parts])
        labels = np.concatenate([data.targets for data in parts])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        pixels = torch.nn.functional.interpolate(pixels, (64, 64), mode="bicubic", antialias=True)
        with torch.no_grad():
            return model(pixels.clamp(0, 255) / 127.5 - 1).double().numpy(), labels

    x, y = features(stream.train)
    means = np.stack([x[y == label].mean(0) for label in range(5)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    x, y = features(stream.test)
    answers = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ means.T
    return float((answers.argmax(1) == y).mean())


def run(compose: Compose, *overrides: str) -> Experiment:
    target = "stream._target_=tests.test_real_data.small_cifar"
    pretrained = "backbone.pretrained=true"
    cfg = compose("backbone=vit_tiny", "backbone.image_size=64", pretrained, target, *overrides)
    experiment = Experiment(cfg, loggers=[])
    experiment.run()
    return experiment


def test_simplecil_is_a_nearest_class_mean_classifier(compose: Compose) -> None:
    experiment = run(compose, "strategy=simplecil")
    accuracy = experiment.summary()["average_accuracy"]
    assert accuracy == pytest.approx(reference_accuracy(), abs=0.001)
    assert accuracy > 0.5
    assert experiment.summary()["pretrained"] == "vit_tiny_patch16_224"


def test_same_seed_same_matrix_byte_for_byte(compose: Compose) -> None:
    first, second = (
        (
            run(compose, "strategy=olora", "trainer.epochs=1").folder / "accuracy_matrix.csv"
        ).read_bytes()
        for _ in range(2)
    )
    assert first == second
