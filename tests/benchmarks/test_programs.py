"""Every speed program runs in its quick form and writes what it promises; how fast it is, is not tested."""

from __future__ import annotations

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

CLAIMS = {
    "loop": 2,
    "avalanche_loop": 2,
    "fisher": 5,
    "checkpoint_cost": 2,
    "evaluation": 2,
    "gradient_free": 6,
    "gpu": 10,
    "step_cost": 6,
}
"""How many claims each program makes in its quick form."""

OF_THEIR_OWN = {"growth": 4, "startup": 3, "wandb_cost": 3}
"""The same for those that start processes."""


def check(file: Path, program: str, claims: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    assert content["program"] == program
    assert content["quick"] is True
    assert len(content["claims"]) == claims
    for claim in content["claims"]:
        assert claim.keys() == {"text", "value", "target", "at_least", "rounds", "met"}
        assert math.isfinite(claim["value"])
        assert (claim["met"] is None) == (claim["target"] is None)
    assert content["seconds"]
    assert all(s > 0 for taken in content["seconds"].values() for s in taken)
    assert content["hardware"]["cores"] == os.cpu_count()
    assert content["hardware"]["threads"] == 1
    assert content["date"][:2] == "20"
    assert content["versions"]["torch"]
    return content


def quick(program: str, file: Path) -> list[str]:
    options = ["--device", "cpu"] if program == "gpu" else []
    few = ["--quick", "--repetitions", "1", "--threads", "1", "--out", str(file)]
    return [str(FOLDER / f"{program}.py"), *options, *few]


@pytest.mark.parametrize("program", CLAIMS)
def test_quick_form(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out" / "result.json"
    monkeypatch.setattr(sys, "argv", quick(program, file))
    monkeypatch.syspath_prepend(str(FOLDER))
    runpy.run_path(sys.argv[0], run_name="__main__")
    content = check(file, program, CLAIMS[program])
    if program == "fisher":
        errors = [claim["met"] for claim in content["claims"] if "error" in claim["text"]]
        assert errors == [True, True]


@pytest.mark.parametrize("program", OF_THEIR_OWN)
def test_quick_form_of_those_that_start_processes(program: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    subprocess.run([sys.executable, *quick(program, file)], check=True, capture_output=True)
    check(file, program, OF_THEIR_OWN[program])
    assert (tmp_path / "result.png").exists() == (program == "growth")


def test_without_a_gpu_the_gpu_program_says_so() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1
    assert "no GPU" in done.stderr
    assert "--device cpu --quick" in done.stderr


def test_a_ratio_is_the_median_over_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import timing

    seconds = {"a": [1.0, 20.0, 6.0], "b": [2.0, 10.0, 2.0]}
    assert timing.ratio(seconds, "a", "b") == 2.0
    assert timing.Claim("", 2.0, 1.05).met is False
    assert timing.Claim("", 2.0, 1.05, at_least=True).met is True
    assert timing.Claim("", 2.0).met is None


def test_jobs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an order that alternates; the first round is not counted; preparing is not timed."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import timing

    done: list[str] = []

    def job(name: str) -> Any:
        def prepare() -> Any:
            done.append(f"prepare {name}")
            return lambda: done.append(name)

        return prepare

    seconds = timing.interleave({"a": job("a"), "b": job("b")}, 2)
    assert [name for name in done if len(name) == 1] == ["b", "a", "a", "b", "b", "a"]
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2}
