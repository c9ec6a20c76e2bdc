"""What evaluation costs in all over a stream of 10, 50 and 200 experiences with a frozen backbone.

    python benchmarks/evaluation.py

The same 10,000 test images of 200 classes, cut into more and more experiences; SimpleCIL on nano. The
backbone needs to see each test image once, however many rows the accuracy matrix has. Target: flat
within 20 %.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

from jobs import compose, stream
from timing import Claim, Seconds, interleave, parse, parser, ratio, report

from cl.evaluation import evaluate
from cl.learner import Learner


def run(tasks: int, count: int, classes: int, taken: list[float]) -> Callable[[], object]:
    """Learns the stream; the seconds of all its evaluations together are added to `taken`."""
    data = stream(count, tasks, classes)
    learner = Learner(compose("strategy=simplecil", "backbone=nano"), data.info)

    def work() -> None:
        total = 0.0
        for index in range(tasks):
            learner.learn(data.experience(index))
            start = time.perf_counter()
            evaluate(learner, data, index)
            total += time.perf_counter() - start
        taken.append(total)

    return work


def main(options: argparse.Namespace) -> None:
    """The three lengths in turn; `count` training images, a fifth as many test images."""
    lengths, count, classes = (
        ((2, 5, 10), 200, 10) if options.quick else ((10, 50, 200), 50_000, 200)
    )
    taken: Seconds = {str(tasks): [] for tasks in lengths}
    jobs = {
        str(tasks): (lambda t=tasks: run(t, count, classes, taken[str(t)]))  # type: ignore[misc]
        for tasks in lengths
    }
    interleave(jobs, options.repetitions, warm_up=False)
    shortest = str(lengths[0])
    claims = [
        Claim(f"{name} experiences over {shortest}", ratio(taken, name, shortest), 1.2)
        for name in list(taken)[1:]
    ]
    print({name: f"{median(values):.2f} s" for name, values in taken.items()})
    report(options, claims, taken, training_images=count, test_images=count // 5)


if __name__ == "__main__":
    main(parse(parser(__doc__)))
