"""`python -m cl.streams`: the table and the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl.streams import configured, draw, main, row, rows
from streams.sequences import synthetic
from tests.contract.test_streams import ALL


def test_the_table_has_every_stream(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CL_DATA_DIR", str(tmp_path))
    main([])
    shown = capsys.readouterr().out
    for name in ALL:
        assert name in shown
    assert "1,438 + 359" in shown


def test_what_is_not_here_is_told_without_a_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CL_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("CL_OFFLINE", raising=False)
    found = {each.name: each for each in rows()}
    cifar = found["split_cifar"]
    assert (cifar.here, cifar.classes, cifar.images) == ("no", "100", "50,000 + 10,000")
    assert found["folder"].here == "give stream.root"
    assert found["split_digits"].licence == "CC BY 4.0"
    assert list(found) == ALL
    import os

    assert "CL_OFFLINE" not in os.environ


def test_a_row_counts_what_is_there() -> None:
    made = row("few_shot")
    assert (made.scenario, made.classes, made.tasks) == ("class-incremental", "10", "4")
    assert made.images == "606 + 359"
    assert made.size == "8 × 8"


def test_show_takes_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "out.png"
    main(["show", "split_digits", str(file), "stream.tasks=2"])
    assert "shows split_digits" in capsys.readouterr().out
    assert len(configured("split_digits", ["stream.tasks=2"])) == 2
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (900, 1100, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, "something is drawn"


def test_long_streams_are_sampled(tmp_path: Path) -> None:
    draw(synthetic(experiences=2000, new_classes=0), tmp_path / "long.png")
    assert (tmp_path / "long.png").stat().st_size > 10_000


def test_a_typo_is_answered(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Did you mean split_digits"):
        main(["show", "split_digit", str(tmp_path / "out.png")])
    with pytest.raises(SystemExit, match=r"stream\.taks: there is no such key"):
        main(["show", "split_digits", str(tmp_path / "out.png"), "stream.taks=2"])
