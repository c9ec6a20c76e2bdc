"""docs/first_strategy.md: every block is run, in order, as a reader would."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, read_page

CHECKOUT = ("cl", "configs", "strategies", "streams", "tests", "run.py", "pyproject.toml")


def test_every_block_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reader"
    for name in CHECKOUT:
        source, target = ROOT / name, folder / "palimpsest" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    monkeypatch.chdir(folder)
    reader = read_page(DOCS / "first_strategy.md", folder)
    assert "my_method" in reader.output
