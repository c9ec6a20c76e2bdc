"""Damage every kind of file that the program reads, and judge what comes of it.

    python -m benchmarks.fuzz --cases 5000 --seed 0 --out result.json
    python -m benchmarks.fuzz --seed 0 --only "learner:17"

Each case copies a kind's files, mutates one of them with a generator of its own, and reads them as the
program does. Right are a sentence (a PalimpsestError, or a word on the console), the same result as without
the mutation, or what the files now say where nothing can tell that they once said something else ("as
given"). Defects are tracebacks, hangs, and another result without a word, among which count code that was
executed, an environment variable that was shown, and a record that contradicts itself. Exit status 1 if
there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import torch

from benchmarks.fuzz import arrays, compared, images, labels, learners, resumed, words
from benchmarks.fuzz.harness import DEFECTS, VERDICTS, Kind, Outcome, play
from cl.environment import describe

MODULES = (learners, labels, resumed, compared, arrays, images, words)

KINDS: dict[str, Kind] = {
    kind.name: kind()
    for module in (learners, labels, resumed, compared, arrays, images, words)
    for kind in module.KINDS_HERE
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=5000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a kind, or kind:number for a single case")
    parser.add_argument("--out", type=Path, help="JSON file for the table and the defects")
    options = parser.parse_args(argv)
    start = time.monotonic()
    outcomes = list(play_all(options.cases, options.seed, options.only))
    table = tabulate(outcomes)
    show(table, outcomes, options.seed, bool(options.only))
    bad = [outcome for outcome in outcomes if outcome.verdict in DEFECTS]
    if options.out:
        content = {
            "program": "fuzz",
            "seed": options.seed,
            "cases": len(outcomes),
            "table": table,
            "defects": [{**asdict(each), "replay": replay(each, options.seed)} for each in bad],
            "seconds": round(time.monotonic() - start, 1),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            **describe(torch.device("cpu")),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return bool(bad)


def play_all(cases: int, seed: int, only: str | None = None) -> Iterator[Outcome]:
    """So many cases, shared by the kinds; or those of one kind; or a single one."""
    name, number = only, None
    if only and only not in KINDS:
        name, _, text = only.rpartition(":")
        number = int(text)
    chosen = [KINDS[name]] if name else list(KINDS.values())
    weight = sum(kind.share for kind in chosen)
    for kind in chosen:
        count = max(1, round(cases * kind.share / weight))
        yield from play(kind, seed, range(count) if number is None else [number])


def tabulate(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """By kind, how many cases there were and what came of them."""
    table: dict[str, dict[str, int]] = {}
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        counts = Counter(outcome.verdict for outcome in outcomes if outcome.kind == kind)
        table[kind] = {"cases": counts.total(), **{v: counts[v] for v in VERDICTS}}
    total = Counter(outcome.verdict for outcome in outcomes)
    table["all"] = {"cases": len(outcomes), **{v: total[v] for v in VERDICTS}}
    return table


def show(
    table: dict[str, dict[str, int]], outcomes: Sequence[Outcome], seed: int, all_: bool
) -> None:
    """The table; then the defects, or all cases."""
    width = max(map(len, table)) + 1
    print(" " * width + "".join(f"{column:>11}" for column in table["all"]))
    for kind, counts in table.items():
        print(f"{kind:<{width}}" + "".join(f"{count:>11}" for count in counts.values()))
    for outcome in outcomes:
        if all_ or outcome.verdict in DEFECTS:
            print(f"{outcome.verdict}: {outcome.mutation}\n    {outcome.message}  {outcome.where}")
            print(f"    {replay(outcome, seed)}")


def replay(outcome: Outcome, seed: int) -> str:
    """The command that plays one case again."""
    return f'python -m benchmarks.fuzz --seed {seed} --only "{outcome.kind}:{outcome.number}"'


if __name__ == "__main__":
    sys.exit(main())
