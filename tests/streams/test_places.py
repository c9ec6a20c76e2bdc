"""Downloads: one process does it, and what a killed one left is not believed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cl.data.datasets import DataCard, MissingDataError
from cl.errors import DataError
from streams.datasets.places import fetched
from tests.processes import at_once, die, killed, ordinary_user

CARD = DataCard(1, 20, 0, "8 × 8", "none", "nobody")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CL_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("CL_OFFLINE", raising=False)
    return tmp_path


def source(part: str, download: bool) -> list[str]:
    """As torchvision does: files are written where they will lie, and a folder that is there is believed."""
    folder = Path("things")
    if download and not folder.exists():
        with Path("log").open("a") as log:
            log.write("download\n")
        folder.mkdir()
        for number in range(20):
            time.sleep(0.002)
            (folder / str(number)).touch()
    if not folder.exists():
        raise RuntimeError("not found, you can use download=True")
    return [path.name for path in folder.iterdir()]


def load() -> int:
    (found,) = fetched("things", source, ["train"], "things/*", CARD)
    return len(found)


def test_of_eight_processes_one_downloads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert at_once(8, load) == [20] * 8
    assert Path("log").read_text() == "download\n"


def test_a_download_that_was_cut_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    naps: list[float] = []

    def die_after_some(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 5:
            die()

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", die_after_some)
        killed(load)
    assert 0 < len(list(Path("things").iterdir())) < 20
    for _ in range(2):
        with pytest.raises(DataError, match=r"cut off.*\nthings/\*\nDelete that and .*\.things\.d"):
            load()
    monkeypatch.setenv("CL_OFFLINE", "1")
    with pytest.raises(MissingDataError, match="a download was cut off"):
        load()
    monkeypatch.delenv("CL_OFFLINE")
    for file in Path("things").iterdir():
        file.unlink()
    Path("things").rmdir()
    assert load() == 20, "nothing of it is there: it is downloaded again"
    assert load() == 20


def test_a_read_only_folder_says_where_it_was_looked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("CL_DATA_DIR", ".")
    root.chmod(0o555)
    with ordinary_user(), pytest.raises(MissingDataError, match=r"denied.*\nthings"):
        load()
