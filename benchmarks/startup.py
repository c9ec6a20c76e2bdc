"""How long it takes to start: `--help`, and to the end of the first training step; in processes of their own.

    python benchmarks/startup.py

Targets: `python run.py --help` under 3 seconds, and at most half the time of `import avalanche`; the first
step of split_digits on nano after at most 1.3 times the time of `import torch, timm`. Both of these two
processes end at once, with nothing tidied up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from statistics import median

from timing import ROOT, Claim, Seconds, interleave, parse, parser, ratio, report


def command(*arguments: str) -> Callable[[], object]:
    """Runs Python with these arguments in the repository."""

    def run() -> None:
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)

    return run


def first_step(output: str) -> tuple[str, ...]:
    """The command of a run that ends with its first step."""
    plugin = "+plugin.first_step._target_=benchmarks.first_step.FirstStep"
    return ("run.py", "stream=split_digits", "backbone=nano", f"output={output}", plugin)


def measure(options: argparse.Namespace, output: str) -> Seconds:
    """The commands in turn; the first round, which fills the disk cache, is not counted."""
    imports = "import os, torch, timm; os._exit(0)"
    jobs = {
        "run.py --help": lambda: command("run.py", "--help"),
        "import avalanche": lambda: command("-c", "import avalanche, avalanche.training"),
        "import torch": lambda: command("-c", "import torch"),
        "run.py to the first step": lambda: command(*first_step(output)),
        "import torch, timm": lambda: command("-c", imports),
    }
    if options.quick:
        del jobs["import torch"]
    return interleave(jobs, options.repetitions, warm_up=not options.quick)


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as output:
        seconds = measure(options, output)
    for name, taken in seconds.items():
        print(f"{name}: {median(taken):.2f} s")
    claims = [
        Claim("seconds of run.py --help", median(seconds["run.py --help"]), 3.0),
        Claim(
            "run.py --help over import avalanche",
            ratio(seconds, "run.py --help", "import avalanche"),
            0.5,
        ),
        Claim(
            "run.py to the first step over import torch, timm",
            ratio(seconds, "run.py to the first step", "import torch, timm"),
            1.3,
        ),
    ]
    report(options, claims, seconds)


if __name__ == "__main__":
    main(parse(parser(__doc__)))
