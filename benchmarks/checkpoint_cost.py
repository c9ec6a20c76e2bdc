"""What the checkpoint after every experience costs: the same run with and without.

    python benchmarks/checkpoint_cost.py

nano on a stream of ten experiences of 1,000 random images, with naive and with EWC, which stores twice
the weights. Target: at most 2 % of the run's time. The difference of two runs is less certain than
that, so the time inside `Learner.save` is measured too, and its share is what the target is held
against.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from jobs import compose
from timing import Claim, interleave, parse, parser, ratio, report

from cl.experiment import Experiment


def run(strategy: str, count: int, checkpoint: bool, folder: str, shares: list[float]) -> Callable:
    """A run of the stream; with checkpoints, the share of its time that goes into them is added."""
    cfg = compose(
        f"strategy={strategy}",
        "stream=custom",
        "stream._target_=jobs.stream",
        f"+stream.count={count}",
        "+stream.tasks=10",
        "backbone=nano",
        f"trainer.checkpoint={str(checkpoint).lower()}",
        f"output={folder}",
    )
    experiment = Experiment(cfg, loggers=[])
    save, saving = experiment.learner.save, [0.0]

    def timed(to: Path) -> None:
        start = time.perf_counter()
        save(to)
        saving[0] += time.perf_counter() - start

    def work() -> None:
        start = time.perf_counter()
        experiment.run()
        if checkpoint:
            shares.append(saving[0] / (time.perf_counter() - start))

    experiment.learner.save = timed  # type: ignore[method-assign]
    return work


def main(options: argparse.Namespace) -> None:
    """With and without, in turn."""
    count = 160 if options.quick else 10_000
    strategies = ("naive",) if options.quick else ("naive", "ewc")
    shares: dict[str, list[float]] = {strategy: [] for strategy in strategies}
    with tempfile.TemporaryDirectory() as folder:
        jobs = {
            f"{strategy}, {'with' if checkpoint else 'without'}": (
                lambda s=strategy, c=checkpoint: run(s, count, c, folder, shares[s])  # type: ignore[misc]
            )
            for strategy in strategies
            for checkpoint in (True, False)
        }
        seconds = interleave(jobs, options.repetitions, warm_up=not options.quick)
    claims = []
    for s in strategies:
        claims.append(Claim(f"share of the time spent saving, {s}", median(shares[s]), 0.02))
        claims.append(
            Claim(f"with over without, {s}", ratio(seconds, f"{s}, with", f"{s}, without"))
        )
    report(options, claims, seconds, images=count, shares=shares)


if __name__ == "__main__":
    main(parse(parser(__doc__)))
