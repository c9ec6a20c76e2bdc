"""Gradient-free strategies against one forward pass over the training and test images.

    CL_DATA_DIR=… CL_WEIGHTS_DIR=… python benchmarks/gradient_free.py

CIFAR-100 in ten tasks, `vit_tiny`, whole runs with evaluation after every task, once with an empty
feature cache and once with the disk cache that an earlier run of either strategy filled. Targets: at
most 1.10 times the forward pass, and at most 5 % of it. A pass takes minutes, in which a machine changes its
speed by more than that, so the first target is held against the time that the same run spends inside the
backbone (resizing the images, which a forward pass needs too, is not in it). --quick takes random images and
nano.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from jobs import compose
from timing import Claim, interleave, parse, parser, ratio, report
from torch import Tensor

from cl.data import batches
from cl.experiment import Experiment

STRATEGIES = {
    "SimpleCIL": ["strategy=simplecil"],
    "ridge": ["strategy=ranpac", "strategy.bottleneck=0", "strategy.projection=0"],
}
"""Without the random projection and the bottleneck RanPAC is ridge regression on the features."""


def experiment(strategy: str, options: argparse.Namespace, folder: Path, cache: Path) -> Experiment:
    """A run that keeps its features in the folder `cache`."""
    kind = ["stream=split_cifar", "stream.dataset=cifar100", "stream.tasks=10", "backbone=vit_tiny"]
    kind += [f"backbone.image_size={options.image_size}"]
    if options.quick:
        kind = ["stream=custom", "stream._target_=jobs.stream", "+stream.count=400"]
        kind += ["+stream.tasks=2", "backbone=nano"]
    places = [f"output={folder}", f"cache.dir={cache}"]
    return Experiment(compose(*STRATEGIES[strategy], *kind, *places), loggers=[])


def forward_pass(run: Experiment) -> Callable[[], object]:
    """The backbone over all images of the run's stream, and nothing else."""
    learner, stream = run.learner, run.stream
    size, device = learner.config.evaluation_batch_size, learner.fabric.device

    @torch.inference_mode()
    def work() -> None:
        learner.model.eval()
        for data in (*stream.train, *stream.test):
            for batch in batches(data, learner.model.transform, size, device):
                learner.model.backbone(batch.images[:])

    return work


def watched(run: Experiment, shares: list[float]) -> Callable[[], object]:
    """The run; its time over the time inside the backbone is added to `shares`."""
    forward, inside = run.learner.model.backbone.forward, [0.0]

    def timed(images: Tensor) -> Tensor:
        start = time.perf_counter()
        features: Tensor = forward(images)
        inside[0] += time.perf_counter() - start
        return features

    def work() -> None:
        start = time.perf_counter()
        run.run()
        shares.append((time.perf_counter() - start) / inside[0])

    backbone = run.learner.model.backbone
    backbone.forward, backbone.transient = timed, ("forward",)
    return work


def main(options: argparse.Namespace) -> None:
    """The forward pass, and each strategy's first and second run, in turn."""
    shares: dict[str, list[float]] = {strategy: [] for strategy in STRATEGIES}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)

        def first(strategy: str) -> Callable[[], object]:
            cache = Path(tempfile.mkdtemp(dir=root))
            return watched(experiment(strategy, options, root, cache), shares[strategy])

        def second(strategy: str) -> Callable[[], object]:
            return experiment(strategy, options, root, root / "filled").run

        jobs = {"forward pass": lambda: forward_pass(experiment("SimpleCIL", options, root, root))}
        second("SimpleCIL")()  # fills the cache
        for strategy in STRATEGIES:
            jobs[f"{strategy}, first run"] = lambda s=strategy: first(s)  # type: ignore[misc]
            jobs[f"{strategy}, second run"] = lambda s=strategy: second(s)  # type: ignore[misc]
        seconds = interleave(jobs, options.repetitions, warm_up=False)
    claims = []
    for strategy, found in shares.items():
        text = f"{strategy}, first run over the time inside the backbone"
        claims.append(Claim(text, median(found), 1.10))
    for run, target in (("first", None), ("second", 0.05)):
        for strategy in STRATEGIES:
            text = f"{strategy}, {run} run over the forward pass"
            value = ratio(seconds, f"{strategy}, {run} run", "forward pass")
            claims.append(Claim(text, value, target))
    report(options, claims, seconds, image_size=options.image_size, shares=shares)


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--image-size", type=int, default=64, help="of vit_tiny (default 64)")
    main(parse(made))
