"""The other pages of docs/: every block is run, in order, as a reader would."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import DOCS, SMALL, read_page


@pytest.mark.parametrize(
    ("page", "added"),
    # The page on deployment opens its model as timm makes it, at its own image size.
    [("index", SMALL), ("reproducing", SMALL), ("hardware", SMALL), ("deployed", "")],
)
def test_every_block_of_the_page_does_what_it_says(
    page: str, added: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    monkeypatch.chdir(folder)
    read_page(DOCS / f"{page}.md", folder, added)
