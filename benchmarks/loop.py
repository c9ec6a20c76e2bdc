"""Our training loop against a bare, hand-written PyTorch loop over the same tensors.

    python benchmarks/loop.py

Full fine-tuning of nano (strategy naive, AdamW) on 10,000 images of 32 × 32 pixels with crop and flip,
one epoch, batches of 64. Target: at most 1.05 times the bare loop's time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from jobs import CNN, compose, crop_and_flip, network, stream, tensors
from timing import Claim, interleave, parse, parser, ratio, report
from torch.nn import functional as F

from cl.learner import Learner
from cl.models.nano import NANO_NAME

BATCH = 64


def ours(count: int, *overrides: str) -> Callable[[], object]:
    """The framework's loop, with everything that `learn` does."""
    data = stream(count)
    cfg = compose("strategy=naive", "backbone.pretrained=false", *overrides)
    learner = Learner(cfg, data.info, "crop_flip")
    return lambda: learner.learn_experience(data.experience(0))


def bare(count: int, name: str) -> Callable[[], object]:
    """The same job by hand."""
    pixels, labels = tensors(stream(count).train[0])
    model = network(name, 10)

    def work() -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        generator = torch.Generator().manual_seed(0)
        model.train()
        for rows in torch.randperm(count, generator=generator).split(BATCH):
            x = crop_and_flip(pixels[rows], generator).permute(0, 3, 1, 2).float()
            x = (x / 255 - 0.5) / 0.5
            loss = F.cross_entropy(model(x.contiguous()), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return work


def main(options: argparse.Namespace) -> None:
    """Both loops in turn, with nano and with a network that is almost nothing."""
    count = 128 if options.quick else 10_000
    small = ("backbone=timm", f"backbone.name={CNN}")
    jobs = {
        "ours": lambda: ours(count, "backbone=nano"),
        "bare": lambda: bare(count, NANO_NAME),
        "ours, small CNN": lambda: ours(count, *small),
        "bare, small CNN": lambda: bare(count, CNN),
    }
    seconds = interleave(jobs, options.repetitions)
    claims = [
        Claim("our loop over the bare loop, nano", ratio(seconds, "ours", "bare"), 1.05),
        Claim(
            "our loop over the bare loop, small CNN",
            ratio(seconds, "ours, small CNN", "bare, small CNN"),
        ),
    ]
    report(options, claims, seconds, images=count, batch_size=BATCH)


if __name__ == "__main__":
    main(parse(parser(__doc__)))
