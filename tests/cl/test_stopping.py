"""A wish to stop is noted once, and the command that goes on can be pasted."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from cl.stopping import StopRequest, resume_command


def test_entered_twice_it_notes_until_it_is_left_for_the_last_time() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        with stop:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == before, "a second one acts as always"
        with stop:
            assert signal.getsignal(signal.SIGTERM) == before
    assert stop.number == signal.SIGTERM, "it is remembered"


@pytest.mark.parametrize(
    "folder",
    [
        "runs/a-b_c/2026",
        "my runs/x",
        "a'b",
        "a\\'b",
        "(2024)/x=1",
        "ümlaut/a,b",
        "~/$HOME/#&",
        "a{b}",
    ],
)
def test_the_command_names_the_folder_through_shell_and_hydra(folder: str) -> None:
    python, program, override = shlex.split(resume_command(Path(folder)))
    assert (python, program) == ("python", "run.py")
    (parsed,) = OverridesParser.create().parse_overrides([override])
    assert parsed.key_or_group == "resume"
    assert parsed.value() == folder
