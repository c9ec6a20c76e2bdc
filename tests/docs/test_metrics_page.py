"""docs/metrics.md: every figure on the page is what cl.metrics computes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cl.metrics import BACKWARD, FORGETTING, backward_transfer, forgetting, summarise
from tests.docs.pages import DOCS, read_page

PAGE = DOCS / "metrics.md"
R = np.array(
    [
        [90, np.nan, np.nan, np.nan],
        [70, 88, np.nan, np.nan],
        [75, 60, 85, np.nan],
        [72, 65, 50, 80],
    ]
)
IMPROVING = np.array([[50, np.nan, np.nan], [60, 70, np.nan], [65, 75, 80]])


def table(heading: str) -> dict[str, list[str]]:
    """The cells after the first column of the table that begins with `heading`, by the first column."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading}"))
    found = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip(" `") for cell in line.strip("|").split("|"))
        found[name] = cells
    return found


def test_the_matrix_on_the_page_is_the_one_that_is_computed_with() -> None:
    shown = table("after task")
    for i in range(4):
        assert [float(cell) for cell in shown[str(i + 1)] if cell] == list(R[i, : i + 1])


def test_the_summary() -> None:
    computed = summarise(R)
    shown = table("name in")
    assert shown.keys() == computed.keys()
    for name, cells in shown.items():
        value = computed[name]
        assert cells[-1] == ("undefined" if value is None else f"{value:.3f}"), name


@pytest.mark.parametrize(
    ("heading", "kinds", "function"),
    [
        ("`forgetting(", FORGETTING, forgetting),
        ("`backward_transfer(", BACKWARD, backward_transfer),
    ],
)
def test_every_variant(heading: str, kinds: dict[str, object], function: object) -> None:
    shown = table(heading)
    assert shown.keys() == kinds.keys()
    for kind, cells in shown.items():
        for text, matrix in zip(cells[-2:], (R, IMPROVING), strict=True):
            assert text == f"{function(matrix, kind):.3f}", kind  # type: ignore[operator]


def test_the_figures_in_the_sentence() -> None:
    text = PAGE.read_text(encoding="utf-8").replace("−", "-")
    sentence = re.search(r"has \"forgotten\" (.*?)\. Compare", text, re.S)
    assert sentence is not None
    figures = [float(n) for n in re.findall(r"-?\d+\.\d", sentence[1])]
    kinds = ("max_prev", "stepwise", "without_previous")
    expected = [forgetting(R, kind) for kind in kinds] + [backward_transfer(R, k) for k in BACKWARD]
    assert figures == [round(float(value or 0), 1) for value in expected]


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    monkeypatch.chdir(folder)
    read_page(PAGE, folder)
