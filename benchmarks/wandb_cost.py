"""What Weights & Biases costs a run when its server cannot be reached.

python benchmarks/wandb_cost.py --repetitions 5 --threads 1

The same small run on the digits, with files alone, and with wandb besides (online, at an address where
nobody answers). The two take turns, each in a process of its own, so wandb is imported anew every time.
Measured is `Experiment.run`: wall clock, and processor time with that of wandb's own processes. What wandb
adds hardly grows with the length of the run, so its share of a long run is smaller.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from timing import ROOT, Claim, Seconds, parse, parser, ratio, report

NOWHERE = "http://127.0.0.1:9"  # the port "discard": nobody listens
LOGGERS = {"files": "[files]", "files and wandb": "[files,wandb]"}


def main() -> None:
    """Measure in turns, or be one of the runs."""
    made = parser(__doc__ or "")
    made.add_argument("--epochs", type=int, default=5, help="of the run that is measured")
    made.add_argument("--run", help=argparse.SUPPRESS)
    options = parse(made)
    if options.run:
        print(json.dumps(run(options.run, options.epochs)))
        return
    wall: Seconds = {name: [] for name in LOGGERS}
    processor: Seconds = {name: [] for name in LOGGERS}
    for turn in range(options.repetitions):
        for name in list(LOGGERS) if turn % 2 == 0 else list(LOGGERS)[::-1]:
            found = measured(name, 1 if options.quick else options.epochs, options.threads)
            wall[name].append(found["wall"])
            processor[name].append(found["processor"])
            print(f"{name}: {found['wall']:.1f} s, of the processor {found['processor']:.1f} s")
    alone, both = LOGGERS
    added = median(a - b for a, b in zip(wall[both], wall[alone], strict=True))
    claims = [
        Claim("with wandb unreachable / without, wall clock", ratio(wall, both, alone), 1.01),
        Claim("the same, processor time", ratio(processor, both, alone)),
        Claim("seconds that it adds, wall clock", added),
    ]
    report(options, claims, wall, processor_seconds=processor, epochs=options.epochs)


def measured(name: str, epochs: int, threads: int) -> dict[str, float]:
    """One run in a fresh process."""
    command = [sys.executable, __file__, "--run", name]
    command += ["--epochs", str(epochs), "--threads", str(threads)]
    environment = {**os.environ, "WANDB_BASE_URL": NOWHERE, "WANDB_API_KEY": "0123456789" * 4}
    environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(name: str, epochs: int) -> dict[str, Any]:
    """Run here; the seconds of `Experiment.run`."""
    import hydra

    from cl.experiment import Experiment

    with tempfile.TemporaryDirectory() as folder:
        choices = ["stream=split_digits", "strategy=naive", f"logger={LOGGERS[name]}"]
        choices += [f"trainer.epochs={epochs}", "trainer.device=cpu", f"output={folder}"]
        choices += ["logger.files.report=false", "stream.tasks=5"]
        names = ["names.stream=split_digits", "names.strategy=naive", "names.backbone=nano"]
        os.chdir(ROOT)
        with hydra.initialize_config_module("configs", version_base="1.3"):
            cfg = hydra.compose("config", [*choices, *names])
        experiment = Experiment(cfg, folder=Path(folder))
        start, before = time.perf_counter(), sum(os.times()[:4])
        summary = experiment.run()
        wall, spent = time.perf_counter() - start, sum(os.times()[:4]) - before
    return {"wall": wall, "processor": spent, "average_accuracy": summary["average_accuracy"]}


if __name__ == "__main__":
    main()
