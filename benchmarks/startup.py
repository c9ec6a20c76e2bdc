"""How long `python run.py --help` takes, against `import avalanche`; each in a process of its own.

    python benchmarks/startup.py

Targets: under 3 seconds, and at most half the time of the import.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from statistics import median

from timing import ROOT, Claim, interleave, parse, parser, ratio, report


def command(*arguments: str) -> Callable[[], object]:
    """Runs Python with these arguments in the repository."""

    def run() -> None:
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)

    return run


def main(options: argparse.Namespace) -> None:
    """The commands in turn; the first round, which fills the disk cache, is not counted."""
    jobs = {
        "run.py --help": lambda: command("run.py", "--help"),
        "import avalanche": lambda: command("-c", "import avalanche, avalanche.training"),
        "import torch": lambda: command("-c", "import torch"),
    }
    if options.quick:
        del jobs["import torch"]
    seconds = interleave(jobs, options.repetitions, warm_up=not options.quick)
    claims = [
        Claim("seconds of run.py --help", median(seconds["run.py --help"]), 3.0),
        Claim(
            "run.py --help over import avalanche",
            ratio(seconds, "run.py --help", "import avalanche"),
            0.5,
        ),
    ]
    report(options, claims, seconds)


if __name__ == "__main__":
    main(parse(parser(__doc__)))
