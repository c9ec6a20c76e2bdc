"""docs/own_data.md: every block is run, in order, as a reader would."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import DOCS, read_page


def test_every_block_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    monkeypatch.chdir(folder)
    read_page(DOCS / "own_data.md", folder)
    runs = [file.parent for file in folder.rglob("summary.json")]
    assert len(runs) == 5, "one of each command"
