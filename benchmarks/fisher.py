"""The exact diagonal Fisher information of nano against one backward pass per image.

    python benchmarks/fisher.py

512 images, 10 classes. Target: at least 4 times faster, equal to 1e-5 (norm of the difference over the
norm, the worst parameter). For comparison: Avalanche's EWC with batches of one, and the ordinary
forward and backward pass over whole batches, which is what must be computed in any case. --profile prints
where the time goes instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from jobs import network
from timing import Claim, interleave, parse, parser, ratio, report
from torch import Tensor, nn
from torch.nn import functional as F

from cl.models.nano import NANO_NAME
from cl.ops.fisher import diagonal_fisher

Fisher = dict[str, Tensor]


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean log-likelihood of the labels."""
    return -F.cross_entropy(logits, labels)


def one_by_one(model: nn.Module, images: Tensor, labels: Tensor) -> Fisher:
    """One backward pass per image."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for index in range(len(images)):
        model.zero_grad()
        one = slice(index, index + 1)
        log_likelihood(model(images[one]), labels[one]).backward()
        for name, parameter in model.named_parameters():
            total[name] += parameter.grad.square()
    return {name: value / len(images) for name, value in total.items()}


def by_avalanche(model: nn.Module, images: Tensor, labels: Tensor) -> Fisher:
    """Avalanche's plugin, which is exact if a batch is one image."""
    from avalanche.training.plugins import EWCPlugin

    data: Any = [(x, y, 0) for x, y in zip(images, labels, strict=True)]
    optimizer = torch.optim.SGD(model.parameters())
    found = EWCPlugin(1.0).compute_importances(model, F.cross_entropy, optimizer, data, "cpu", 1)
    return {name: value.data for name, value in found.items()}


def whole_batches(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward and backward over batches: it gives no Fisher information."""
    for x, y in zip(images.split(32), labels.split(32), strict=True):
        model.zero_grad()
        log_likelihood(model(x), y).backward()


def error(found: Fisher, expected: Fisher) -> float:
    """The largest relative error of a parameter."""
    parts = (
        (found[n].double() - e.double()).norm() / e.double().norm() for n, e in expected.items()
    )
    return max(float(part) for part in parts)


def profile(work: Callable[[], object]) -> None:
    """Print the operations that take the most time, the second time that the work is done."""
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        work()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


def main(options: argparse.Namespace) -> None:
    """All ways in turn."""
    count = 16 if options.quick else 512
    model = network(NANO_NAME, 10, pretrained=True).eval()
    torch.manual_seed(0)
    head = model.get_submodule("head")
    torch.nn.init.normal_(head.weight, std=0.02)  # at zero nothing reaches the backbone
    images, labels = torch.randn(count, 3, 32, 32), torch.arange(count) % 10

    def ours(*given: Any) -> Fisher:
        return diagonal_fisher(given[0], [given[1:]], log_likelihood)

    ways: dict[str, Callable[..., Any]] = {
        "ours": ours,
        "one by one": one_by_one,
        "Avalanche": by_avalanche,
        "whole batches": whole_batches,
    }
    jobs = {
        name: lambda way=way: lambda: way(model, images, labels)  # type: ignore[misc]
        for name, way in ways.items()
    }
    if options.profile:
        profile(jobs["ours"]())
        return
    seconds = interleave(jobs, options.repetitions)
    single = error(ours(model, images, labels), one_by_one(model, images, labels))
    model.double()
    exact = one_by_one(model, images.double(), labels)
    model.float()
    claims = [
        Claim(
            "times faster than one backward pass per image",
            ratio(seconds, "one by one", "ours"),
            4.0,
            at_least=True,
        ),
        Claim("times faster than Avalanche", ratio(seconds, "Avalanche", "ours")),
        Claim("times the bare forward and backward pass", ratio(seconds, "ours", "whole batches")),
        Claim("relative error × 1e5 to the loop", 1e5 * single, 1.0),
        Claim(
            "relative error × 1e5 to the loop in float64",
            1e5 * error(ours(model, images, labels), exact),
            1.0,
        ),
    ]
    report(options, claims, seconds, images=count)


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--profile", action="store_true", help="no figures: where the time goes")
    main(parse(made))
