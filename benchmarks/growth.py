"""Do time and memory per experience grow? naive, EWC and O-LoRA over 200 small experiences.

    python benchmarks/growth.py

Each experience brings 2 new classes of random 8 × 8 images. naive and EWC may grow by their head's rows
(EWC three times: the weights, their anchors and their stiffness); O-LoRA by a pair of factors per task,
and its forward pass with them unless they are merged. Each strategy runs in a process of its own, so
that its peak memory is its own. Writes a plot beside the JSON file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import matplotlib
import torch
from jobs import compose, stream
from timing import Claim, parse, parser, report

from cl.environment import peak_memory_bytes
from cl.learner import Learner

RUNS = {
    "naive": ["strategy=naive"],
    "EWC": ["strategy=ewc"],
    "O-LoRA": ["strategy=olora"],
    "O-LoRA, merged": ["strategy=olora", "strategy.merge=true"],
}
FLAT = ("naive", "EWC")


class Costs(NamedTuple):
    """By experience: seconds of learning it, numbers stored, the most memory so far."""

    seconds: list[float]
    stored: list[int]
    peak_bytes: list[int]


def learn(overrides: list[str], experiences: int, images: int, threads: int) -> Costs:
    """Learn the whole stream."""
    torch.set_num_threads(threads)
    data = stream(experiences * images, experiences, 2 * experiences, side=8)
    small = ["backbone=nano", "backbone.pretrained=false", "backbone.image_size=8"]
    learner = Learner(compose(*overrides, *small), data.info)
    costs = Costs([], [], [])
    for index in range(experiences):
        experience = data.experience(index)
        start = time.perf_counter()
        learner.learn_experience(experience)
        costs.seconds.append(time.perf_counter() - start)
        costs.stored.append(learner.stored_numbers)
        costs.peak_bytes.append(peak_memory_bytes(torch.device("cpu")) or 0)
    return costs


def growth(values: list[float]) -> float:
    """The median of the last fifth over that of the second fifth; the first one warms up."""
    fifth = max(1, len(values) // 5)
    return median(values[-fifth:]) / median(values[fifth : 2 * fifth])


def plot(costs: dict[str, Costs], file: Path) -> None:
    """Seconds, numbers and memory over the experiences."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    titles = ("seconds per experience", "numbers stored, millions", "peak memory, MB")
    for panel, title, scale, part in zip(panels, titles, (1, 1e6, 1e6), Costs._fields, strict=True):
        for name, cost in costs.items():
            panel.plot([value / scale for value in getattr(cost, part)], label=name, linewidth=1)
        panel.set(title=title, xlabel="experience", ylim=(0, None))
    panels[0].legend(fontsize="small")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main(options: argparse.Namespace) -> None:
    """One strategy after the other."""
    experiences, images = (6, 8) if options.quick else (200, 64)
    spawn = multiprocessing.get_context("spawn")
    costs = {}
    for name in ("naive", "O-LoRA") if options.quick else RUNS:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            job = pool.submit(learn, RUNS[name], experiences, images, options.threads)
            costs[name] = job.result()
    claims = []
    for name, cost in costs.items():
        flat = name in FLAT
        claims.append(
            Claim(f"growth of the time, {name}", growth(cost.seconds), 1.2 if flat else None)
        )
    for name, cost in costs.items():
        added = [b - a for a, b in zip(cost.stored, cost.stored[1:], strict=False)]
        head = 2 * (192 + 1)
        claims.append(
            Claim(
                f"numbers that an experience adds, over those of its rows of the head, {name}",
                max(added) / head,
                {"naive": 1, "EWC": 3}.get(name),
            )
        )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        plot(costs, options.out.with_suffix(".png"))
    seconds = {name: cost.seconds for name, cost in costs.items()}
    details = {
        "stored_numbers": {name: cost.stored for name, cost in costs.items()},
        "peak_memory_bytes": {name: cost.peak_bytes for name, cost in costs.items()},
    }
    report(options, claims, seconds, experiences=experiences, images=images, **details)


if __name__ == "__main__":
    main(parse(parser(__doc__)))
