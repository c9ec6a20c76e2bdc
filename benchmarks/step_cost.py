"""What a training step of each strategy costs, against naive fine-tuning, and how much of it passes explain.

    python benchmarks/step_cost.py

nano learns the second of two experiences of random images, all strategies in turn. The time of `learn`
(with what a method does before and after its steps) per step of the optimiser is divided by naive's of the
same round. Beside it stands the work that the passes through the last block explain: a pass with gradient
counts three, another one (prototypes, a teacher, a memory) one, whatever of it the feature cache saves.
Where the first figure is well above the second, a method is slower than it need be.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from jobs import compose, stream
from timing import Claim, interleave, parse, parser, ratio, report
from torch import Tensor, nn

from benchmarks.results_page import strategies
from cl.learner import Learner

BATCH = 16
QUICK = ("naive", "simplecil", "lwf", "ease")


def prepared(strategy: str, images: int, *overrides: str) -> tuple[Learner, Any]:
    """A learner that has learnt the first experience, and the second one."""
    data = stream(2 * images, tasks=2, classes=20)
    cfg = compose(
        f"strategy={strategy}", "backbone=nano", f"trainer.batch_size={BATCH}", *overrides
    )
    learner = Learner(cfg, data.info, "crop_flip")
    learner.learn(data.experience(0))
    return learner, data.experience(1)


def timed(strategy: str, images: int, steps: dict[str, int]) -> Callable[[], object]:
    """What is timed; it notes how many steps the optimiser took."""
    learner, experience = prepared(strategy, images)

    def work() -> None:
        steps[strategy] = learner.learn_experience(experience)

    return work


def passes(strategy: str, images: int) -> int:
    """Passes of single images through the last block in the second experience: 3 with gradient, else 1."""
    learner, experience = prepared(strategy, images, "cache.memory_gb=0")
    work = 0

    def count(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal work
        work += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)

    blocks: Any = learner.model.backbone.blocks
    blocks[-1].register_forward_pre_hook(count)
    learner.learn_experience(experience)
    return work


def main(options: argparse.Namespace) -> None:
    """All of them in turn."""
    images = 2 * BATCH if options.quick else 16 * BATCH
    names = list(QUICK) if options.quick else strategies()
    steps: dict[str, int] = {}
    jobs = {name: (lambda n=name: timed(n, images, steps)) for name in names}  # type: ignore[misc]
    seconds = interleave(jobs, options.repetitions, warm_up=not options.quick)
    stepping = [name for name in names if steps[name]]
    work = {name: passes(name, images) / steps[name] for name in stepping}
    claims = []
    for name in stepping:
        time = ratio(seconds, name, "naive") * steps["naive"] / steps[name]
        claims.append(Claim(f"time per step over naive's, {name}", time))
        claims.append(Claim(f"passes per step over naive's, {name}", work[name] / work["naive"]))
    report(options, claims, seconds, images=images, batch_size=BATCH, steps=steps)


if __name__ == "__main__":
    main(parse(parser(__doc__)))
