"""The same training job with our loop and with Avalanche's `Naive` and the usual per-image transforms.

    python benchmarks/avalanche_loop.py

10,000 images of 32 × 32 pixels, torchvision's RandomCrop(32, padding=4), RandomHorizontalFlip, ToTensor
and Normalize on one image at a time there, a batch at a time here; AdamW, batches of 64, one epoch.
With a small CNN the loop counts (target: at least 2.2 times faster), with nano the network does
(reported). The CNN takes a second, so it runs five times as often.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from jobs import CNN, images, network
from loop import ours
from PIL import Image
from timing import Claim, interleave, parse, parser, ratio, report
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from cl.data import ArrayDataset
from cl.data.avalanche import labelled
from cl.models.nano import NANO_NAME

USUAL = transforms.Compose(
    [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.5,) * 3, (0.5,) * 3),
    ]
)


class Pictures(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR: an array, each image made a PIL image and transformed when it is asked for."""

    def __init__(self, data: ArrayDataset) -> None:
        self.images, self.targets = data.images, data.targets.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return USUAL(Image.fromarray(self.images[index])), self.targets[index]


def avalanche(count: int, name: str) -> Callable[[], object]:
    """Avalanche's naive strategy, without metrics and without output."""
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    pictures = Pictures(images(count, 10))
    data: Any = labelled(pictures, pictures.targets, 0)
    benchmark = benchmark_from_datasets(train=[data], test=[data])
    model = network(name, 10)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=64,
        train_epochs=1,
        device="cpu",
        evaluator=EvaluationPlugin(),
    )
    return lambda: strategy.train(benchmark.train_stream[0], num_workers=0)


def main(options: argparse.Namespace) -> None:
    """Both jobs in turn, with one network and then with the other."""
    count = 128 if options.quick else 10_000
    cnn = {
        "ours, small CNN": lambda: ours(count, "backbone=timm", f"backbone.name={CNN}"),
        "Avalanche, small CNN": lambda: avalanche(count, CNN),
    }
    nano = {
        "ours, nano": lambda: ours(count, "backbone=nano"),
        "Avalanche, nano": lambda: avalanche(count, NANO_NAME),
    }
    often, seldom = 5 * options.repetitions, options.repetitions
    seconds = interleave(cnn, often) | interleave(nano, seldom, warm_up=False)
    small = ratio(seconds, "Avalanche, small CNN", "ours, small CNN")
    claims = [
        Claim(
            "times faster than Avalanche, small CNN",
            small,
            2.2,
            at_least=True,
            rounds=len(seconds["ours, small CNN"]),
        ),
        Claim("times faster than Avalanche, nano", ratio(seconds, "Avalanche, nano", "ours, nano")),
    ]
    report(options, claims, seconds, images=count)


if __name__ == "__main__":
    main(parse(parser(__doc__)))
