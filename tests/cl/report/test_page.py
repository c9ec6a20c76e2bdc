"""The page of a run: complete, without network, and safe whatever the names are."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import cl.report.page
from cl.checkpoint import save_json
from cl.data import ArrayDataset
from cl.errors import DataError
from cl.evaluation import AccuracyMatrix, Cell
from cl.experiment import Experiment
from cl.loggers import FileLogger
from cl.metrics import summarise
from cl.report.page import samples, write_report
from cl.report.plots import heat_map, shade, to_pixels, to_svg
from cl.report.runs import Run
from cl.stream import Stream
from tests.cl.loggers.events import R, result, run_info, step, summary, tell
from tests.conftest import Compose, toy_stream

COUNTS = np.nan_to_num(10 * R).round().astype(int).tolist()
CELLS = [Cell(i, j, 10, COUNTS[i][j], COUNTS[i][j]) for i in range(3) for j in range(i + 1)]


class Page(HTMLParser):
    """The tags, attributes and words of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data


def finished(folder: Path) -> Path:
    (folder / "accuracy_matrix.csv").write_text(AccuracyMatrix(CELLS).to_csv())
    OmegaConf.save(
        OmegaConf.create({"seed": 3, "strategy": {"strength": 0.5}}), folder / "config.yaml"
    )
    tell(FileLogger(), folder)
    return folder / "report.html"


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    file = finished(tmp_path)
    page = Page(file)
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "http:" not in re.sub(r"data:[^\"]*", "", file.read_text())
    assert "script" not in page.tags
    figures = [s for s in page.sources if "svg" in s]
    assert len(figures) == 8, "curves, matrix, forgetting, losses, time, two sizes and memory"
    assert len(page.sources) - len(figures) == 3 * 8, "eight images of each of the three tasks"
    for word in (
        "70.0 %",
        "30.0 %",
        "strategy.strength",
        "0.5",
        "a processor",
        "class 5",
        "task 3",
    ):
        assert word in page.words


def test_where_nothing_is_learnt_in_a_sequence_no_forgetting_is_drawn(tmp_path: Path) -> None:
    finished(tmp_path)
    file = tmp_path / "summary.json"
    unknown = dict.fromkeys(("forgetting", "backward_transfer"))
    file.write_text(json.dumps({**json.loads(file.read_text()), **unknown}))
    page = Page(write_report(tmp_path, None))
    assert len(page.sources) == 7
    assert "Learning against forgetting" not in page.words


def hostile(stream: Stream) -> Stream:
    names = [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(2)>',
        "$x^2$ & [/]",
        "{{ 7*7 }}",
    ]
    return dataclasses.replace(stream, class_names=tuple(names))


def test_names_are_escaped(tmp_path: Path) -> None:
    """Of classes, of the stream and the strategy, in the configuration, and of a logged number."""
    (tmp_path / "accuracy_matrix.csv").write_text(AccuracyMatrix(CELLS).to_csv())
    evil = "<script>alert(3)</script>-->"
    OmegaConf.save(OmegaConf.create({evil: {"x": evil}}), tmp_path / "config.yaml")
    logger = FileLogger()
    names = dict.fromkeys(("stream", "strategy", "backbone"), evil)
    run = dataclasses.replace(run_info(tmp_path, names), stream=hostile(toy_stream()))
    logger.start(run)
    logger.step({**step(0, 5), evil: 1.0})
    found = {**summary(), "names": names, "pretrained": evil, "git_revision": evil}
    save_json(found, tmp_path / "summary.json")
    logger.finish(found)
    logger.close()
    page = Page(tmp_path / "report.html")
    assert "script" not in page.tags
    assert all(source.startswith("data:image/") for source in page.sources)
    assert page.words.count("<script>alert(1)</script>") > 0
    assert '"><img src=x onerror=alert(2)>' in page.words
    assert "{{ 7*7 }}" in page.words
    assert evil in page.words
    for source in page.sources:
        if "svg" in source:
            assert "<script" not in re.sub(
                r"<!--.*?-->", "", base64.b64decode(source.partition(",")[2]).decode(), flags=re.S
            )


def test_a_failure_of_the_report_does_not_lose_the_run(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(cl.report.page, "write_report", fail)
    experiment = Experiment(compose("strategy=simplecil", "logger=[files]"))
    summary = experiment.run()
    assert summary["average_accuracy"] >= 0
    assert (experiment.folder / "summary.json").exists()
    assert "report.html could not be written: MemoryError('no room')" in capsys.readouterr().err


def test_a_run_leaves_a_report_unless_told_not_to(compose: Compose) -> None:
    with_page = Experiment(compose("strategy=naive", "logger=[files]"))
    with_page.run()
    page = Page(with_page.folder / "report.html")
    assert "The backbone started at random" in page.words
    without = Experiment(
        compose("strategy=simplecil", "logger=[files]", "logger.files.report=false")
    )
    without.run()
    assert not (without.folder / "report.html").exists()


def test_samples_are_of_as_many_classes_as_possible() -> None:
    (four, *_) = (samples(toy_stream(tasks=1), 0),)
    assert [sample.name for sample in four] == [f"class {c}" for c in (0, 0, 1, 1, 2, 2, 3, 3)]
    twelve = samples(toy_stream(tasks=1, classes=12), 0)
    assert [sample.name for sample in twelve] == [f"class {c}" for c in range(8)]


def test_samples_are_the_images_themselves() -> None:
    stream = toy_stream()
    image = samples(stream, 0)[0].image
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))))
    first = stream.train[0].take(np.array([0]))[0][0]
    assert np.array_equal(pixels[::6, ::6], first), "8 × 8 pixels, each enlarged to 6 × 6"
    grey = ArrayDataset.of(np.zeros((4, 300, 200, 1), np.uint8), np.arange(4))
    large = dataclasses.replace(stream, train=(grey, grey), test=(grey, grey), seen=(4, 4))
    assert Image.open(
        io.BytesIO(base64.b64decode(samples(large, 0)[0].image.partition(",")[2]))
    ).size == (64, 96)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    finished(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "exper')  # killed here
    tell(FileLogger(report=False), tmp_path, first=2)  # and the last experience once more
    run = Run.load(tmp_path)
    assert np.array_equal(run.accuracy, R, equal_nan=True)
    assert run.means() == pytest.approx([0.9, 0.75, 0.7])
    assert [event["experience"] for event in run.experiences] == [0, 1, 2]
    assert [event["total_steps"] for event in run.steps] == [5, 10, 15, 20, 25, 30]
    (tmp_path / "summary.json").unlink()
    with pytest.raises(DataError, match="not complete"):
        Run.load(tmp_path)


def test_a_cell_ahead_of_its_row_is_no_column(tmp_path: Path) -> None:
    ahead = AccuracyMatrix([Cell(0, 0, 10, 9, 9), Cell(0, 1, 10, 2, 2)])
    (tmp_path / "m.csv").write_text(ahead.to_csv())
    assert AccuracyMatrix.read(tmp_path / "m.csv").values().tolist() == [[0.9]]


def test_a_heat_map_is_darker_where_the_accuracy_is_higher() -> None:
    brightness = [sum(shade(value)) for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert brightness == sorted(brightness, reverse=True)
    pixels = to_pixels(heat_map(R))
    found = {tuple(int(c) for c in pixel) for pixel in pixels.reshape(-1, 3)}
    assert {shade(value) for value in (0.9, 0.7, 0.8, 0.6, 0.5, 1.0)} <= found


def test_the_same_run_gives_the_same_picture() -> None:
    assert to_svg(heat_map(R)).startswith("<svg")
    assert to_svg(heat_map(R)) == to_svg(heat_map(R))


def test_long_streams_and_one_task(tmp_path: Path) -> None:
    for tasks in (1, 60):
        cells = [Cell(i, j, 10, 5, 5) for i in range(tasks) for j in range(i + 1)]
        (tmp_path / "accuracy_matrix.csv").write_text(AccuracyMatrix(cells).to_csv())
        OmegaConf.save(OmegaConf.create({}), tmp_path / "config.yaml")
        logger = FileLogger(report=False)
        logger.start(run_info(tmp_path))
        logger.experience(result(0))
        told = summarise(AccuracyMatrix(cells).values())
        save_json({**summary(), **told, "within_task": told}, tmp_path / "summary.json")
        logger.finish(summary())
        logger.close()
        assert len(Page(write_report(tmp_path, None)).sources) >= 3
