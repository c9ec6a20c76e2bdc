"""A sweep: a run that fails stops no other, is listed at the end, and the rest is compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import configs
from cl.sweep import varied

ROOT = Path(configs.__file__).parent.parent


def test_a_failing_run_is_listed_and_the_others_are_compared(tmp_path: Path) -> None:
    arguments = ["-m", "strategy=simplecil", "stream.tasks=2,11", "seed=0,1"]
    arguments += ["backbone.image_size=8", "logger=[files]", "logger.files.report=false"]
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1, result.stderr
    assert "2 of 4 runs failed" in result.stderr
    assert "stream.tasks=11 seed=1" in result.stderr
    assert "at most 10 tasks" in result.stderr
    assert "Traceback" not in result.stderr
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    assert {"comparison.md", "comparison.csv", "comparison.tex", "curves.png"} <= {
        file.name for file in sweep.iterdir()
    }
    table = (sweep / "comparison.md").read_text()
    assert "| 2 | 2 |" in table, "the group stream.tasks=2, and n = 2"
    jobs = [json.loads(file.read_text()) for file in sorted((sweep / "jobs").iterdir())]
    assert [job["error"] is None for job in jobs] == [True, True, False, False]


def test_a_sweep_is_compared_by_what_varies() -> None:
    def jobs(*overrides: list[str]) -> list[dict[str, object]]:
        return [{"overrides": each} for each in overrides]

    assert varied(jobs(["strategy=a", "seed=0"], ["strategy=b", "seed=1"])) == ["strategy"]
    assert varied(jobs(["seed=0", "trainer.lr=1"], ["seed=1", "trainer.lr=1"])) == ["strategy"]
    assert varied(jobs(["strategy.rank=1"], ["strategy.rank=2"])) == ["strategy.rank"]
