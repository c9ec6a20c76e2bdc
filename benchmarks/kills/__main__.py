"""Kill runs of twelve strategies, resume them, and compare them with runs that nobody disturbed.

    python -m benchmarks.kills --kills 40 --seed 0 --out result.json
    python -m benchmarks.kills --kills 0 --crashes naive          # at every change of a file
    python -m benchmarks.kills --seed 0 --only 17

A quarter of the kills each at a moment drawn uniformly from the duration of the undisturbed run, while a
checkpoint is written (before a change of a file, or in the middle of a write), in the tail (summary, learner,
removal of the checkpoints), and on a disk with too little room. SIGKILL and SIGTERM take turns by chance. Who
goes on after one of the second and third sort is killed soon, too; on the full disk somebody tries in vain.
What is resumed must end with the same bytes: accuracy matrix, learner, and all figures but times. Defects
are another result, a run that cannot be resumed, a traceback and a hang. Exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from random import Random

import torch

from benchmarks.fuzz.surroundings import at, memory
from benchmarks.kills.deaths import Event, Moment, small_disk
from benchmarks.kills.lives import (
    STRATEGIES,
    End,
    Undisturbed,
    complete,
    configuration,
    live,
    results,
    watch,
)
from benchmarks.toys import DATA, save_pixels
from cl.environment import describe

WAYS = ("moment", "saving", "full", "tail")
WRONG = ("traceback", "hang", "lost")
"""How no process may end."""

ATTEMPTS = 5
"""So many processes have a run; the third is not disturbed any more."""


@dataclass(frozen=True)
class Death:
    """How a run was killed, how that process ended, and what was wrong afterwards ("": nothing)."""

    name: str
    strategy: str
    way: str
    end: str
    wrong: str

    @property
    def died(self) -> bool:
        """Whether it ended before it was complete."""
        return self.end != "complete"


class Kills:
    """Runs in a folder; each strategy's undisturbed run is made when it is needed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.undisturbed, self.resumed = cache(self._undisturbed), cache(self._resumed)

    def _undisturbed(self, strategy: str) -> Undisturbed:
        return Undisturbed.of(configuration(strategy), self.folder / f"{strategy}-undisturbed")

    def kill(self, number: int) -> Death:
        """The kill of this number."""
        chance, name = Random(f"{self.seed}/{number}"), f"{number}"
        strategy = list(STRATEGIES)[number % len(STRATEGIES)]
        way = WAYS[(number + number // len(STRATEGIES)) % len(WAYS)]
        known = self.undisturbed(strategy)
        deadly = chance.choice((signal.SIGKILL, signal.SIGTERM))
        sent = (chance.uniform(0, known.seconds), deadly)
        if way == "full":
            return self.on_a_small_disk(name, strategy, sent, chance)
        if way == "moment":
            return self.die(name, strategy, f"{deadly.name} at a moment", Moment(), sent)
        event = chance.choice(saving(known.events) if way == "saving" else tail(known.events))
        again = Moment(event=chance.randrange(20), torn=chance.choice((None, 0, 100)))
        if way == "saving" and chance.random() < 0.5:
            torn = Moment(event=event, torn=int(10 ** chance.uniform(0, 4.5)))
            return self.die(name, strategy, "torn write in saving", torn, again=again)
        how = f"{deadly.name} in {way}"
        return self.die(name, strategy, how, Moment(deadly, event), again=again)

    def die(
        self,
        name: str,
        strategy: str,
        way: str,
        moment: Moment,
        sent: tuple[float, int] | None = None,
        again: Moment | None = None,
    ) -> Death:
        """Kill a run, and perhaps the one that goes on with it, and see what becomes of it."""
        folder, cfg = self.folder / f"killed-{name.replace(':', '-')}", configuration(strategy)
        ends = [live(cfg, folder, moment, sent)]
        if again and not complete(folder):
            ends.append(live(cfg, folder, again))
        return Death(name, strategy, way, ends[0].kind, self.aftermath(strategy, folder, ends))

    def on_a_small_disk(
        self, name: str, strategy: str, sent: tuple[float, int], chance: Random
    ) -> Death:
        """The same where the disk is too small; or, where none can be mounted, its files.

        Somebody tries to go on before there is room.
        """
        free = int(self.undisturbed(strategy).bytes * chance.uniform(0.02, 1.0))
        place = self.folder / f"disk-{name}"
        try:
            with small_disk(place, free) as disk:
                cfg, folder = configuration(strategy), place / "run"
                ends = [live(cfg, folder, Moment(), sent if free % 2 else None)]
                if not complete(folder):
                    disk.fill()
                    ends.append(live(cfg, folder, Moment()))
                disk.clear()
                wrong = self.aftermath(strategy, folder, ends)
                return Death(name, strategy, "full tmpfs", ends[0].kind, wrong)
        except OSError:
            limited = Moment(largest=int(10 ** chance.uniform(1, 4.5)))
            return self.die(name, strategy, "files of limited size", limited, again=limited)

    def aftermath(self, strategy: str, folder: Path, ends: Sequence[End]) -> str:
        """Go on until the run is complete; what was wrong on the way, or is then."""
        cfg, ends = configuration(strategy), list(ends)
        while not complete(folder) and len(ends) < ATTEMPTS:
            ends.append(live(cfg, folder, Moment()))
        wrong = [f"{end.kind}: {end.said}" for end in ends if end.kind in WRONG]
        if not complete(folder):
            return "; ".join([*wrong, f"not complete after {len(ends)} attempts"])
        found, expected = results(folder), self.undisturbed(strategy).results
        differ = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
        return "; ".join([*wrong, *(f"{key} differs" for key in differ)])

    def crashes(self, strategy: str, step: int) -> Iterator[Death]:
        """A run that dies before its k-th change of a file, or in the write after it, for every k.

        And one that died in the middle, and dies again after it was gone on with.
        """
        for again in (False, True):
            events = self.events(strategy, again)
            for index in range(0, len(events), step):
                yield self.crash(strategy, again, index, None)
                if events[index].opens:
                    torn = Random(index).choice((0, 0, 1, 100, 2000))
                    yield self.crash(strategy, again, index, torn)

    def events(self, strategy: str, again: bool) -> Sequence[Event]:
        """What a run, or one that goes on from the middle, does to the file system."""
        return self.resumed(strategy) if again else self.undisturbed(strategy).events

    def _resumed(self, strategy: str) -> tuple[Event, ...]:
        folder = self.folder / f"{strategy}-resumed"
        live(configuration(strategy), folder, self.middle(strategy))
        return watch(configuration(strategy), folder)

    def middle(self, strategy: str) -> Moment:
        """A death in the middle."""
        return Moment(signal.SIGKILL, len(self.undisturbed(strategy).events) // 2)

    def crash(self, strategy: str, again: bool, index: int, torn: int | None) -> Death:
        """One of these."""
        event, moment = self.events(strategy, again)[index], Moment(signal.SIGKILL, index, torn)
        way = f"{event.name} {Path(event.path).name}{', resumed' if again else ''}"
        name = ":".join([strategy, "again" if again else "once", f"{index}"])
        name, way = (name, way) if torn is None else (f"{name}:{torn}", f"{way}, torn write")
        if again:
            return self.die(name, strategy, way, self.middle(strategy), again=moment)
        return self.die(name, strategy, way, moment)


def saving(events: Sequence[Event]) -> list[int]:
    """Which changes of files belong to a checkpoint."""
    return [i for i, e in enumerate(events) if "checkpoints" in e.path or e.name == "fsync"]


def tail(events: Sequence[Event]) -> range:
    """Those after the last checkpoint: summary, learner, removal of the checkpoints."""
    renamed = [i for i, e in enumerate(events) if e.name == "os.rename" and "checkpoints" in e.path]
    return range(renamed[-1] + 1, len(events))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40, help="runs that die before their end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crashes", nargs="*", default=[], help="strategies that die everywhere")
    parser.add_argument("--step", type=int, default=1, help="at every so manieth change of a file")
    parser.add_argument("--only", help="the name of a death in an earlier output")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(argv)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-", dir=memory()) as folder, at(Path(folder)):
        save_pixels(Path(DATA))
        deaths = []
        for death in play(Kills(Path(folder), options.seed), options):
            print(
                f"{death.name:>20}  {death.strategy:8} {death.way:50} {death.end:10} {death.wrong}"
            )
            deaths.append(death)
    bad = [death for death in deaths if death.wrong]
    died = Counter(death.end for death in deaths if death.died)
    print(f"{died.total()} died ({dict(died)}), {len(bad)} of them were not as if nothing had been")
    if options.out:
        content = {
            "program": "kills",
            "seed": options.seed,
            "deaths": [asdict(death) for death in deaths],
            "died": died.total(),
            "defects": len(bad),
            "seconds": round(time.monotonic() - start, 1),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            **describe(torch.device("cpu")),
        }
        options.out.resolve().parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return bool(bad)


def play(kills: Kills, options: argparse.Namespace) -> Iterator[Death]:
    """What the options ask for."""
    if options.only:
        yield replayed(kills, options.only)
        return
    number = died = 0
    while died < options.kills and number < 3 * options.kills:
        death = kills.kill(number)
        number, died = number + 1, died + death.died
        yield death
    for strategy in options.crashes:
        yield from kills.crashes(strategy, options.step)


def replayed(kills: Kills, name: str) -> Death:
    """One death again, by its name."""
    if name.isdecimal():
        return kills.kill(int(name))
    strategy, life, index, *torn = name.split(":")
    return kills.crash(strategy, life == "again", int(index), int(torn[0]) if torn else None)


if __name__ == "__main__":
    sys.exit(main())
