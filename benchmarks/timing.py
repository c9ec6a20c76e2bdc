"""What the speed programs share: interleaved repetitions, ratios, hardware, one JSON file each.

A claim compares two jobs. They run in turn in one process, in an order that alternates, so that a
machine that becomes slower for a while slows both; the ratio is taken within each round, and the median
of these counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results"

Seconds = dict[str, list[float]]


class Claim(NamedTuple):
    """What is measured and what it should be; target None: it is only reported.

    rounds: over how many, if not over the program's `repetitions`.
    """

    text: str
    value: float
    target: float | None = None
    at_least: bool = False
    rounds: int | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def parser(doc: str) -> argparse.ArgumentParser:
    """The options of every program."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--quick", action="store_true", help="seconds instead of minutes; proves nothing"
    )
    made.add_argument("--repetitions", type=int, help="rounds (default 5, quick 2)")
    made.add_argument("--threads", type=int, default=2, help="of PyTorch on the CPU (default 2)")
    made.add_argument(
        "--out",
        type=Path,
        help="JSON file (default benchmarks/results/<program>.json; quick: none)",
    )
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, with their defaults filled in; sets the number of threads."""
    import torch

    options = made.parse_args()
    options.program = Path(sys.argv[0]).stem
    if options.repetitions is None:
        options.repetitions = 2 if options.quick else 5
    if options.out is None and not options.quick:
        options.out = RESULTS / f"{options.program}.json"
    torch.set_num_threads(options.threads)
    return options


def interleave(
    jobs: Mapping[str, Callable[[], Callable[[], object]]], repetitions: int, warm_up: bool = True
) -> Seconds:
    """The seconds of each job in each round. warm_up: one round before is not counted.

    A job prepares, which is not counted, and returns what is.
    """
    seconds: Seconds = {name: [] for name in jobs}
    for round_ in range(-warm_up, repetitions):
        names = list(jobs) if round_ % 2 == 0 else list(jobs)[::-1]
        for name in names:
            work = jobs[name]()
            start = time.perf_counter()
            work()
            taken = time.perf_counter() - start
            if round_ >= 0:
                seconds[name].append(taken)
    return seconds


def ratio(seconds: Seconds, a: str, b: str) -> float:
    """Time of a over time of b: the median over the rounds."""
    return median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))


def report(
    options: argparse.Namespace, claims: list[Claim], seconds: Seconds, **details: Any
) -> None:
    """Print the claims, and write them with all seconds, the hardware and the date."""
    import torch

    from cl.environment import describe

    for claim in claims:
        sign = "≥" if claim.at_least else "≤"
        target = "" if claim.target is None else f"   target {sign} {claim.target:g}"
        verdict = {True: "   met", False: "   NOT MET", None: ""}[claim.met]
        print(f"{claim.text}: {claim.value:.3f}{target}{verdict}")
    if options.quick:
        print("(--quick: too short to prove anything)")
    if options.out is None:
        return
    device = torch.device(getattr(options, "device", "cpu"))
    content = {
        "program": options.program,
        "quick": options.quick,
        "repetitions": options.repetitions,
        "claims": [{**claim._asdict(), "met": claim.met} for claim in claims],
        "seconds": {name: [round(s, 6) for s in taken] for name, taken in seconds.items()},
        **details,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        **describe(device),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
