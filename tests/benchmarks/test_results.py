"""The table of results: what is run, what is kept, and what the document says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import results, results_page
from benchmarks.results_page import BEGIN, END, Cell, Table
from benchmarks.subset import split_subset
from cl.data.datasets import DataSet
from cl.errors import PalimpsestError
from tests.conftest import toy_images

TABLE = results_page.TABLES["cifar100_nano"]
PUBLISHED = json.loads(results_page.PUBLISHED.read_text())
STEPS = {
    "claims": [
        {"text": "time per step over naive's, lwf", "value": 1.5},
        {"text": "passes per step over naive's, lwf", "value": 1.25},
    ],
    "repetitions": 3,
    "hardware": {"device": "cpu", "cpu": "toy", "threads": 1},
    "date": "2026-01-02T03:04:05",
}


def cell(strategy: str, seed: int = 0, accuracy: float = 0.5, **other: Any) -> Cell:
    hardware = {"device": "cpu", "cpu": "toy", "threads": 1}
    made = {"strategy": strategy, "overrides": TABLE.overrides, "seed": seed, "hardware": hardware}
    made |= {"average_accuracy": accuracy, "average_incremental_accuracy": 0.6, "forgetting": 0.1}
    made |= {"learning_accuracy": 0.7, "seconds": 9.0, "trainable_parameters": 12345}
    made |= {"stored_numbers": 678, "training_seconds": 4.0, "evaluation_seconds": 5.0, "steps": 20}
    return made | {"pretrained": "nano", "date": "2026-01-02T03:04:05"} | other


def row(lines: list[str], strategy: str) -> list[str]:
    (line,) = [line for line in lines if line.startswith(f"| `{strategy}` ")]
    return [part.strip() for part in line.strip("|").split("|")]


def test_costs_are_read_from_the_events() -> None:
    events = [
        {"event": "step", "total_steps": 3},
        {"event": "experience", "training_seconds": 1.5, "evaluation_seconds": 0.5},
        {"event": "step", "total_steps": 6},
        {"event": "experience", "training_seconds": 2.0, "evaluation_seconds": 1.0},
    ]
    expected = {"training_seconds": 3.5, "evaluation_seconds": 1.5, "steps": 6}
    assert results.costs(events) == expected
    assert results.costs([])["steps"] == 0


def test_a_row_has_the_figures_and_what_has_not_run_is_empty() -> None:
    cells = [cell("naive"), cell("lwf", 0, 0.4, training_seconds=6.0), cell("lwf", 1, 0.5)]
    lines = results_page.results_table(cells, PUBLISHED["figures"], {})
    lwf, mos = row(lines, "lwf"), row(lines, "mos")
    assert lwf[:3] == ["`lwf`", "0, 1", "45.0 ± 7.1"]
    assert lwf[6:11] == ["", "12,345", "678", "5", "5"]
    assert mos[1:11] == [""] * 10
    assert mos[11:13] == ["89.25", "93.3"], "the published figure stands there nevertheless"
    assert len({len(line.split("|")) for line in lines}) == 1
    assert set(results_page.strategies()) >= {"naive", "mos", "ranpac"}
    assert "custom" not in results_page.strategies()


def test_time_per_step_beside_the_passes_that_explain_it() -> None:
    costs = results_page.step_costs(STEPS["claims"])
    lines = results_page.results_table([cell("lwf"), cell("simplecil", steps=0)], [], costs)
    assert row(lines, "lwf")[11:13] == ["1.50", "1.25"]
    assert row(lines, "simplecil")[11:13] == ["–", "–"], "it takes no steps"
    assert len({len(line.split("|")) for line in lines}) == 1


def test_the_published_figure_of_ten_tasks_goes_first() -> None:
    assert "10 tasks" in results_page.closest("simplecil", PUBLISHED["figures"])["protocol"]
    assert results_page.closest("no_such_method", PUBLISHED["figures"]) == {}


def test_every_published_figure_says_where_it_is_from() -> None:
    for figure in PUBLISHED["figures"]:
        assert figure["strategy"] in results_page.strategies()
        assert figure["source"]
        assert figure["backbone"]
        assert 0 < figure["average_accuracy"] < 100
    for order in PUBLISHED["orders"]:
        assert {order["lower"], order["higher"]} <= set(results_page.strategies())


def test_the_order_is_looked_at_seed_by_seed() -> None:
    cells = [cell("a", 0, 0.50), cell("b", 0, 0.60), cell("a", 1, 0.55), cell("b", 1, 0.75)]
    assert results_page.compared(cells, "a", "b") == "yes: +15.0 (2 of 2 seeds)"
    assert results_page.compared(cells, "b", "a") == "no: -15.0 (0 of 2 seeds)"
    mixed = [*cells, cell("a", 2, 0.9), cell("b", 2, 0.5)]
    assert results_page.compared(mixed, "a", "b").startswith("unclear")
    assert results_page.compared(cells, "a", "c") == ""
    other_seed = [cell("a", 0), cell("c", 1)]
    assert results_page.compared(other_seed, "a", "c") == "", "only the same seeds are compared"


def test_the_hand_written_part_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    results_page.update_document(file, "first")
    file.write_text(f"My title\n{file.read_text()}\n## Findings\nBy hand.\n")
    results_page.update_document(file, "second")
    text = file.read_text()
    assert text.startswith("My title\n# Results")
    assert text.endswith("## Findings\nBy hand.\n")
    assert "second" in text
    assert "first" not in text
    assert text.count(BEGIN) == text.count(END) == 1
    file.write_text("no markers")
    with pytest.raises(SystemExit, match="lacks the markers"):
        results_page.update_document(file, "third")


def test_the_document_has_every_part() -> None:
    text = results_page.generated(
        {"cifar100_nano": [cell("naive")], "cifar100_vit_tiny": []}, PUBLISHED, STEPS
    )
    assert "`benchmarks/step_cost.py`, 3 rounds, cpu (toy, 1 threads), 2026-01-02" in text
    assert "No cell has run yet." in text
    assert "first 100 training and the first 20 test images" in text
    assert "`simplecil` < `aper`" in text
    foreign = results_page.generated(
        {"cifar100_nano": [cell("naive", overrides=["other"])]}, PUBLISHED, STEPS
    )
    assert "No cell has run yet." in foreign, "cells of another protocol are not mixed in"


def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []

    def run(strategy: str, overrides: list[str], seed: int) -> Cell | None:
        ran.append((strategy, seed))
        return None if strategy == "broken" else cell(strategy, seed, versions={}, git_revision="")

    monkeypatch.setattr(results, "run", run)
    monkeypatch.setattr(results_page, "DOCUMENT", tmp_path / "results.md")
    monkeypatch.setattr(results_page, "STEP_COST", tmp_path / "steps.json")
    results_page.STEP_COST.write_text(json.dumps(STEPS))
    file, table = tmp_path / "toy.json", Table(TABLE.stream, TABLE.backbone, (0, 1))
    results.fill(file, table, ["naive", "broken"])
    assert ran == [("naive", 0), ("broken", 0), ("naive", 1), ("broken", 1)]
    ran.clear()
    results.fill(file, table, ["naive", "broken", "ewc"])
    assert ran == [("broken", 0), ("ewc", 0), ("broken", 1), ("ewc", 1)]
    assert [c["strategy"] for c in results_page.load(file)] == ["naive", "naive", "ewc", "ewc"]
    assert BEGIN in (tmp_path / "results.md").read_text()


def test_the_part_is_the_first_images_of_each_class_and_always_the_same() -> None:
    data = DataSet("toy", toy_images(48, 4, 0), toy_images(24, 4, 1), tuple("abcd"))
    stream = split_subset(data, 5, 2, tasks=2, order_seed=1)
    assert [len(part) for part in (*stream.train, *stream.test)] == [10, 10, 4, 4]
    for part, whole, count in ((stream.train, data.train, 5), (stream.test, data.test, 2)):
        rows = np.sort(np.concatenate([each.rows for each in part]))
        expected = np.concatenate([np.flatnonzero(whole.targets == c)[:count] for c in range(4)])
        assert np.array_equal(rows, np.sort(expected))
    assert split_subset(data, 5, 2, 2, 1).fingerprint() == stream.fingerprint()


def test_every_table_is_a_run_that_the_command_line_accepts() -> None:
    from cl.cli import check, expand_targets

    for table in results_page.TABLES.values():
        check(expand_targets(["strategy=naive", *table.overrides, "trainer.checkpoint=false"]))
    with pytest.raises(PalimpsestError):
        check(expand_targets(["strategy=naive", *TABLE.overrides, "trainer.epoch=1"]))
