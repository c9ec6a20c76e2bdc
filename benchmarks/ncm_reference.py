"""A nearest-class-mean classifier on CIFAR-100, independent of the framework: what `simplecil` must equal.

    CL_DATA_DIR=… CL_WEIGHTS_DIR=… python benchmarks/ncm_reference.py --size 96

Plain timm, torch and numpy: cosine similarity to the mean feature of each class, all 50,000 training and
10,000 test images. To be compared with

    python run.py stream=split_cifar strategy=simplecil backbone=vit_tiny backbone.image_size=96
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch.nn import functional as F


def features(model: torch.nn.Module, images: np.ndarray, size: int) -> np.ndarray:
    """uint8 N × 32 × 32 × 3 to N × d, float64."""
    parts = []
    for start in range(0, len(images), 250):
        pixels = torch.from_numpy(np.array(images[start : start + 250])).permute(0, 3, 1, 2)
        pixels = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True)
        with torch.inference_mode():
            parts.append(model(pixels.clamp(0, 255) / 127.5 - 1).double().numpy())
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96)
    size = parser.parse_args().size
    data = Path(os.environ["CL_DATA_DIR"]) / "cifar100"
    weights = Path(os.environ["CL_WEIGHTS_DIR"]) / "vit_tiny_patch16_224.safetensors"
    model = timm.create_model("vit_tiny_patch16_224", img_size=size).eval()
    model.load_state_dict(checkpoint_filter_fn(load_file(weights), model))
    model.reset_classifier(0)
    arrays = {
        part: (np.load(data / f"{part}_images.npy"), np.load(data / f"{part}_labels.npy"))
        for part in ("train", "test")
    }
    x, y = features(model, arrays["train"][0], size), arrays["train"][1]
    means = np.stack([x[y == label].mean(0) for label in range(100)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    answers = features(model, arrays["test"][0], size) @ means.T
    correct = int((answers.argmax(1) == arrays["test"][1]).sum())
    print(f"nearest class mean, vit_tiny at {size} pixels: {correct} of 10000")


if __name__ == "__main__":
    main()
