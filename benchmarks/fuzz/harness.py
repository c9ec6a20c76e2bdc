"""One case: a copy of a kind's files is mutated and read, within limits, and what comes of it judged."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz import mutations
from benchmarks.fuzz.structure import MARK, SECRET, STRUCTURED
from benchmarks.fuzz.surroundings import HangError, at, limited, quiet, scratch, steady
from cl.errors import PalimpsestError

FORK = multiprocessing.get_context("fork")  # a child has everything imported already

ROOT = Path(__file__).resolve().parents[2]

SECONDS = 5
"""A case takes a tenth of a second; one that takes so long hangs."""

VERDICTS = ("sentence", "same", "as given", "traceback", "hang", "wrong")
DEFECTS = VERDICTS[3:]


class Kind:
    """A kind of file that the program reads. A case mutates one of its `files` and calls `read`."""

    name: str
    files: tuple[str, ...] = ()
    share = 1.0
    """Of the cases, beside the other kinds."""
    whole = True
    """Whether a file may also be missing, a folder, a pipe …"""

    def make(self, folder: Path) -> None:
        """Write the files, undamaged, into the current folder, which is `folder`."""
        raise NotImplementedError

    def mutate(self, folder: Path, chance: Random) -> str:
        """Damage something in `folder`; says what was done."""
        found = sorted(
            f for p in self.files for f in folder.glob(p) if f.is_file() and f.stat().st_size
        )
        return mutate_file(chance.choice(found), folder, chance, self.whole)

    def read(self, folder: Path) -> Any:
        """What the program makes of the files in the current folder, which is `folder`."""
        raise NotImplementedError

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        """What is wrong with another result; None if the files say it and nothing could tell."""
        return None if said else "another result, and not a word"


@dataclass(frozen=True)
class Outcome:
    """What came of a case. where: the last line of the program's own in a traceback."""

    kind: str
    number: int
    verdict: str
    mutation: str
    message: str = ""
    where: str = ""


class Fuzz:
    """The cases of one kind. The files are made once, in a folder of its own."""

    def __init__(self, kind: Kind, seed: int, place: Path) -> None:
        self.kind, self.seed, self.place = kind, seed, place
        self.pristine = place / kind.name
        self.pristine.mkdir(parents=True)
        with at(self.pristine), quiet(), steady():
            kind.make(self.pristine)
        with self._copy() as folder, quiet() as said:
            self.expected = kind.read(folder)
            self.usual = said.getvalue()

    def case(self, number: int) -> Iterator[Outcome]:
        """Play a case: an outcome without a verdict when it begins, and the outcome."""
        chance = Random(f"{self.seed}/{self.kind.name}/{number}")
        with self._copy() as folder:
            mutation = self.kind.mutate(folder, chance)
            yield Outcome(self.kind.name, number, "", mutation)
            verdict, message, where = self._judge(folder)
            yield Outcome(self.kind.name, number, verdict, mutation, message, where)

    def _judge(self, folder: Path) -> tuple[str, str, str]:
        with quiet() as said:
            try:
                with limited(SECONDS):
                    found = self.kind.read(folder)
                verdict, message, where = "", "", ""
            except PalimpsestError as error:
                verdict, message, where = "sentence", str(error), ""
            except HangError as error:
                verdict, message, where = "hang", f"more than {SECONDS} s", place_of(error)
            except (Exception, SystemExit) as error:
                verdict, message, where = "traceback", repr(error)[:300], place_of(error)
        told = said.getvalue()
        if os.path.lexists(folder / MARK):
            return "wrong", "something was executed", ""
        if leaked(folder, f"{message}\n{told}"):
            return "wrong", "an environment variable was shown or stored", ""
        if shown := unprintable(f"{message}\n{told}"):
            return "wrong", f"a terminal would be sent {shown!r}", ""
        if verdict:
            return verdict, message.strip()[:300], where
        if found == self.expected:
            return "same", "", ""
        told = told if told != self.usual else ""
        try:
            objection = self.kind.objection(folder, self.expected, found, told)
        except Exception as error:
            objection = f"what was written cannot be read: {error!r}"
        if objection is None:
            return ("sentence" if told.strip() else "as given"), told.strip()[:300], ""
        return "wrong", objection, ""

    @contextlib.contextmanager
    def _copy(self) -> Iterator[Path]:
        folder = self.place / "case"
        shutil.copytree(self.pristine, folder, symlinks=True)
        try:
            with at(folder):
                yield folder
        finally:
            shutil.rmtree(folder)


def play(kind: Kind, seed: int, numbers: Sequence[int]) -> Iterator[Outcome]:
    """The cases of a kind, in a process that is replaced when a case ends or blocks it."""
    left = deque(numbers)
    while left:
        receiving, sending = FORK.Pipe(duplex=False)
        with scratch() as place:
            child = FORK.Process(target=_serve, args=(kind, seed, list(left), place, sending))
            child.start()
            sending.close()
            for outcome in _received(receiving, child):
                left.popleft()
                yield outcome
            child.kill()
            child.join()


def _serve(kind: Kind, seed: int, numbers: list[int], place: Path, sending: Connection) -> None:
    fuzz = Fuzz(kind, seed, place)
    for number in numbers:
        for outcome in fuzz.case(number):
            sending.send(outcome)
        if outcome.verdict == "hang":  # a thread may still wait
            break
    sending.close()
    os._exit(0)


def _received(receiving: Connection, child: BaseProcess) -> Iterator[Outcome]:
    """Outcomes until the process ends; one more if it is blocked, or dies in a case."""
    begun = None
    try:
        while receiving.poll(SECONDS + 10):
            outcome: Outcome = receiving.recv()
            begun = None if outcome.verdict else outcome
            if outcome.verdict:
                yield outcome
        assert begun is not None, "it hangs without any mutation"
        yield replace(begun, verdict="hang", message="it cannot even be interrupted")
    except EOFError:
        child.join()
        assert begun is not None or child.exitcode == 0, "it fails without any mutation"
        if begun is not None:
            yield replace(begun, verdict="traceback", message=f"exit status {child.exitcode}")


def mutate_file(file: Path, folder: Path, chance: Random, whole: bool = True) -> str:
    """Damage a file, in one of the ways that there are for its kind; says which."""
    name = file.relative_to(folder)
    if whole and chance.random() < 0.1:
        deed = chance.choice(mutations.WHOLE)
        deed(file, chance)
        return f"{name}: {deed.__name__}"
    content = file.read_bytes()
    for _ in range(50):
        known = STRUCTURED.get(file.suffix) if chance.random() < 0.5 else None
        change = known or chance.choice(mutations.BYTES)
        changed = change(content, chance)
        if changed != content:
            break
    file.write_bytes(changed)
    return f"{name}: {change.__name__}"


def leaked(folder: Path, said: str) -> bool:
    """Whether the environment's secret was printed, or is in a file that the case has left."""
    secret = os.environ[SECRET]
    files = (f for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    small = (f for f in files if f.stat().st_size < 2**20)
    return secret in said or any(secret.encode() in f.read_bytes() for f in small)


def unprintable(text: str) -> str:
    """The characters of a text that do something to a terminal."""
    return "".join(sorted({c for c in text if not c.isprintable() and c not in "\n\t"}))


def place_of(error: BaseException) -> str:
    """The last line of the program's own code in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if Path(f.filename).is_relative_to(ROOT)]
    ours = [(Path(f.filename).relative_to(ROOT), f) for f in inside]
    ours = [(file, frame) for file, frame in ours if file.parts[0] != "benchmarks"]
    return f"{ours[-1][0]}:{ours[-1][1].lineno} {ours[-1][1].name}" if ours else ""
