"""What Weights & Biases costs a run when its server cannot be reached.

    python benchmarks/wandb_cost.py --repetitions 3 --threads 1

A run on the digits that logs to files and to wandb, online, at an address where nobody answers; each
repetition in a process of its own, so that wandb is imported anew. Two runs, with and without wandb, differ
by more than wandb costs, so it is measured inside one run: the time spent in the logger's calls, the last of
which waits for wandb to finish, and the processor time of wandb's own thread and processes, which work
beside the training. Target: the calls take at most 1 % of the run. Most of it comes once, so a longer run
pays a smaller share. Where no core is free, the processor time is to be added.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from timing import ROOT, Claim, Seconds, parse, parser, ratio, report

NOWHERE = "http://127.0.0.1:9"  # the port "discard": nobody listens
CALLS = ("start", "step", "experience", "finish", "close")


def main() -> None:
    """Measure, or be one of the runs."""
    made = parser(__doc__ or "")
    made.add_argument("--epochs", type=int, default=10, help="of the run that is measured")
    made.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    options = parse(made)
    epochs = 1 if options.quick else options.epochs
    if options.run:
        print(json.dumps(run(epochs)))
        return
    seconds: Seconds = {"run": [], "calls": [], "processor": []}
    for _ in range(options.repetitions):
        found = measured(epochs, options.threads)
        for name, taken in seconds.items():
            taken.append(found[name])
        print(", ".join(f"{name} {taken[-1]:.3f} s" for name, taken in seconds.items()))
    claims = [
        Claim("time inside wandb's calls / run's time", ratio(seconds, "calls", "run"), 0.01),
        Claim(
            "processor time of wandb's thread and processes / run's time",
            ratio(seconds, "processor", "run"),
        ),
        Claim("seconds of the run", median(seconds["run"])),
    ]
    report(options, claims, seconds, epochs=epochs, steps=found["steps"])


def measured(epochs: int, threads: int) -> dict[str, float]:
    """One run in a fresh process."""
    command = [sys.executable, __file__, "--run", f"--epochs={epochs}", f"--threads={threads}"]
    environment = {**os.environ, "WANDB_BASE_URL": NOWHERE, "WANDB_API_KEY": "0123456789" * 4}
    environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(epochs: int) -> dict[str, Any]:
    """Run here, and add up the seconds."""
    import hydra

    from cl.experiment import Experiment
    from cl.loggers.wandb import WandbLogger

    spent = {"calls": 0.0, "processor": 0.0}

    def watch(method: str, name: str, clock: Callable[[], float]) -> None:
        """Add the time that `method` takes on this clock to `spent[name]`."""
        inner = getattr(WandbLogger, method)

        def outer(*arguments: Any) -> None:
            start = clock()
            inner(*arguments)
            spent[name] += clock() - start

        setattr(WandbLogger, method, outer)

    for method in CALLS:
        watch(method, "calls", time.perf_counter)
    watch("_work", "processor", time.thread_time)
    with tempfile.TemporaryDirectory() as folder:
        choices = ["stream=split_digits", "strategy=naive", "logger=[files,wandb]"]
        choices += [f"trainer.epochs={epochs}", "trainer.device=cpu", f"output={folder}"]
        choices += ["logger.files.report=false", "stream.tasks=5"]
        names = ["names.stream=split_digits", "names.strategy=naive", "names.backbone=nano"]
        os.chdir(ROOT)
        with hydra.initialize_config_module("configs", version_base="1.3"):
            cfg = hydra.compose("config", [*choices, *names])
        experiment = Experiment(cfg, folder=Path(folder))
        start, children = time.perf_counter(), sum(os.times()[2:4])
        experiment.run()
        taken = time.perf_counter() - start
    spent["processor"] += sum(os.times()[2:4]) - children
    return {"run": taken, **spent, "steps": experiment.steps}


if __name__ == "__main__":
    main()
