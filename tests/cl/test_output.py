"""Nobody needs to read what a run prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import configs

ROOT = Path(configs.__file__).parent.parent

PRINTS = """
import sys
from rich.console import Console
from cl.output import outlive_readers
outlive_readers(); outlive_readers()
print("first", flush=True)
sys.stdin.readline()
for _ in range(3):
    print("x" * 100_000)
    print("y" * 100_000, file=sys.stderr)
    Console().print("z" * 1000)
open("done", "w").close()
"""


@pytest.mark.parametrize("options", [[], ["-u"]])
@pytest.mark.parametrize("errors", [subprocess.STDOUT, subprocess.PIPE])
def test_a_closed_pipe_stops_nothing(options: list[str], errors: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, *options, "-c", PRINTS],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "first\n"
    process.stdout.close()
    process.stdin.write("go on\n")
    process.stdin.close()
    said = process.stderr.read() if process.stderr else ""
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()
    assert set(said) <= {"y", "\n"}, "no traceback, and nothing about an ignored exception"


def test_a_run_whose_output_nobody_reads_is_complete(tmp_path: Path) -> None:
    """python run.py … 2>&1 | head -1"""
    arguments = ["stream.tasks=2", "strategy=simplecil", "backbone.image_size=8"]
    arguments += ["logger.files.report=false"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert "Loading" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(300) == 0
    (log,) = tmp_path.rglob("log.txt")
    assert "average accuracy" in log.read_text()
    assert (log.parent / "summary.json").exists()
