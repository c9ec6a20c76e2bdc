"""Comparisons with known answers, and those that are refused."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.compare import compare, main, to_csv, to_latex, to_markdown, write
from cl.errors import ConfigurationError, DataError
from cl.report import plots
from cl.report.groups import Difference, Statistic, differences
from cl.report.runs import Run
from tests.cl.report.folders import make_run, make_sweep
from tests.processes import at_once


def test_mean_and_standard_deviation_over_seeds(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    olora, naive = compare([tmp_path]).groups
    assert (olora.name, naive.name) == ("olora", "naive"), "the best first"
    found = Statistic.of(naive.values("average_accuracy"))
    assert (found.mean, found.n) == (pytest.approx(0.6), 3)
    assert found.deviation == pytest.approx(0.05), "ddof = 1; with ddof = 0 it would be 0.0408"
    found = Statistic.of(olora.values("average_accuracy"))
    assert (found.mean, found.deviation) == (
        pytest.approx(0.84),
        pytest.approx(math.sqrt((0.04**2 + 0.02**2 + 0.06**2) / 2)),
    )
    assert Statistic.of(naive.values("forgetting")).mean == pytest.approx(0.6)


def test_paired_differences_have_students_interval(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    compared = compare([tmp_path], baseline="naive")
    found = Difference.between(compared.groups[0], compared.groups[1], "average_accuracy")
    pairs = np.array([0.25, 0.22, 0.25])
    assert found.mean == pytest.approx(pairs.mean())
    # The 97.5 % quantile of Student's t with two degrees of freedom is 4.302653 in every table.
    assert found.half_width == pytest.approx(4.302653 * pairs.std(ddof=1) / math.sqrt(3), rel=1e-6)
    assert found.n == 3
    shown = to_markdown(compared)
    assert "+24.00 [+19.70, +28.30] (3 pairs)" in shown
    assert "ddof = 1" in shown


def test_pairs_are_of_the_same_seed(tmp_path: Path) -> None:
    for seed, last in ((0, 0.2), (1, 0.4)):
        make_run(tmp_path, "naive", seed, last)
    for seed, last in ((1, 0.6), (2, 0.9)):
        make_run(tmp_path, "olora", seed, last)
    compared = compare([tmp_path], baseline="naive")
    found = Difference.between(compared.groups[0], compared.groups[1], "average_accuracy")
    assert (found.mean, found.n) == (pytest.approx(0.1), 1)
    assert math.isnan(found.half_width)
    assert "+10.00 (1 pair)" in to_markdown(compared)


def test_the_folder_of_a_sweep_stands_for_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sweep(tmp_path / "runs")
    make_run(tmp_path / "runs", "naive", 3, 0.9)  # not of the sweep
    jobs = tmp_path / "sweeps" / "first" / "jobs"
    jobs.mkdir(parents=True)
    kept = sorted((tmp_path / "runs").glob("*/*-seed[012]"))
    for number, folder in enumerate([*kept, tmp_path / "runs" / "gone"]):
        note = {"folder": os.path.relpath(folder, jobs.parent), "overrides": [], "error": None}
        (jobs / f"{number:05d}.json").write_text(json.dumps(note))
    (jobs / "00009.json").write_text('{"folder": null, "overrides": [], "error": "failed"}')
    for here, sweep in ((tmp_path, "sweeps/first"), (jobs, ".."), (tmp_path, "sweeps")):
        monkeypatch.chdir(here)
        groups = compare([Path(sweep)]).groups
        assert [(group.name, group.seeds) for group in groups] == [
            ("olora", [0, 1, 2]),
            ("naive", [0, 1, 2]),
        ]


def test_fewer_forgotten_is_better(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    assert [g.name for g in compare([tmp_path], metric="forgetting").groups] == ["olora", "naive"]


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("stream", {"tasks": 5}, "stream.tasks: 2 and 5"),
        ("backbone", {"name": "vit"}, "backbone.name: nano and vit"),
        ("trainer", {"lr": 0.2}, "trainer.lr: 0.1 and 0.2"),
        ("strategy", {"rank": 4}, "strategy.rank: 8 and 4"),
        ("plugin", {"ema": {"decay": 0.9}}, "plugin.ema.decay: None and 0.9"),
    ],
)
def test_runs_that_differ_are_not_averaged(
    tmp_path: Path, key: str, value: dict[str, object], shown: str
) -> None:
    make_run(tmp_path, "olora", 0, 0.5)
    make_run(tmp_path, "olora", 1, 0.5, config={key: value})
    with pytest.raises(ConfigurationError, match="cannot be averaged") as refused:
        compare([tmp_path])
    assert shown in str(refused.value)


def test_runs_on_other_images_are_not_averaged(tmp_path: Path) -> None:
    make_run(tmp_path, "olora", 0, 0.5)
    make_run(tmp_path, "olora", 1, 0.5, stream_fingerprint="def", pretrained="random")
    with pytest.raises(ConfigurationError) as refused:
        compare([tmp_path])
    assert "stream_fingerprint: abc and def" in str(refused.value)
    assert "pretrained: nano, 1.0 and random" in str(refused.value)
    assert "--allow pretrained,stream_fingerprint" in str(refused.value)
    assert len(compare([tmp_path], allow=["pretrained", "stream_fingerprint"]).groups) == 1


def test_strategies_on_different_streams_are_not_compared(tmp_path: Path) -> None:
    make_run(tmp_path, "olora", 0, 0.5)
    make_run(tmp_path, "naive", 0, 0.5, config={"stream": {"tasks": 5}}, stream_fingerprint="d")
    with pytest.raises(ConfigurationError, match="cannot be compared"):
        compare([tmp_path])
    assert len(compare([tmp_path], by=["strategy", "stream.tasks"]).groups) == 2


def test_learning_rates_may_differ_between_strategies_but_not_within(tmp_path: Path) -> None:
    make_run(tmp_path, "olora", 0, 0.5)
    make_run(tmp_path, "naive", 0, 0.5, config={"trainer": {"lr": 0.2}})
    assert len(compare([tmp_path]).groups) == 2


def test_what_does_not_change_the_numbers_may_differ(tmp_path: Path) -> None:
    a = make_run(tmp_path, "olora", 0, 0.5)
    config = {"trainer": {"device": "cuda"}, "output": "elsewhere", "logger": {"x": {"y": 1}}}
    b = make_run(tmp_path, "olora", 1, 0.5, config=config)
    assert differences(Run.load(a), Run.load(b)) == []


def test_by_any_key(tmp_path: Path) -> None:
    for rank in (4, 8):
        for seed in (0, 1):
            make_run(tmp_path, "olora", seed, rank / 10, config={"strategy": {"rank": rank}})
    groups = compare([tmp_path], by=["strategy", "strategy.rank"]).groups
    assert [group.name for group in groups] == ["olora, strategy.rank=8", "olora, strategy.rank=4"]
    with pytest.raises(ConfigurationError, match=r"Did you mean strategy\.rank"):
        compare([tmp_path], by=["strategy.rnk"])


def test_of_two_runs_of_a_seed_the_later_one_counts(tmp_path: Path) -> None:
    make_run(tmp_path, "olora", 0, 0.5, date="2026-01-02T00:00:00+00:00")
    make_run(tmp_path, "olora", 0, 0.1)
    (group,) = compare([tmp_path]).groups
    assert group.values("average_accuracy").tolist() == [0.7]


def test_incomplete_runs_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sweep(tmp_path)
    folder = make_run(tmp_path, "ewc", 0, 0.5)
    (folder / "summary.json").unlink()
    assert len(compare([tmp_path]).groups) == 2
    assert str(folder) in capsys.readouterr().err


DAMAGES = [
    ("summary.json", b""),
    ("summary.json", b"[1, 2]"),
    ("summary.json", b"null"),
    ("summary.json", b"\xff\xfe"),
    ("summary.json", b"[" * 100_000),
    ("config.yaml", b""),
    ("config.yaml", b"a: b: c"),
    ("config.yaml", b"\t- x"),
    ("config.yaml", b"- 1"),
    ("config.yaml", b"\xff\xfe\x00"),
    ("config.yaml", b"seed: 0"),
    ("accuracy_matrix.csv", b""),
    ("accuracy_matrix.csv", b"experience,task,images,correct\n0,0,0,0\n"),
    ("accuracy_matrix.csv", b"experience,task,images,correct\n0,0,10,20\n"),
    ("accuracy_matrix.csv", b"experience,task,images,correct\n0\n"),
    ("accuracy_matrix.csv", b"\x00\x00"),
]


@pytest.mark.parametrize(("name", "content"), DAMAGES)
def test_a_damaged_run_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    make_sweep(tmp_path)
    folder = make_run(tmp_path, "naive", 3, 0.5)
    (folder / name).write_bytes(content)
    with pytest.raises(SystemExit, match="1 left out"):
        main([str(tmp_path)])
    shown = capsys.readouterr()
    assert f"left out: {folder}" in shown.err
    assert "60.00 ± 5.00" in shown.out, "the others are compared"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "zero"),
        ("date", 3),
        ("names", {"stream": "x"}),
        ("average_accuracy", "high"),
        ("average_accuracy", math.inf),
        ("average_accuracy", math.nan),
        ("forgetting", []),
        ("trainable_parameters", 10**400),
        ("seconds", -1),
    ],
)
def test_a_number_that_nobody_measured_is_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: object
) -> None:
    make_sweep(tmp_path)
    folder = make_run(tmp_path, "naive", 3, 0.5)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, key: value}))
    with pytest.raises(SystemExit, match="1 left out"):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert str(folder) in capsys.readouterr().err
    assert "60.0" in (tmp_path / "out" / "comparison.md").read_text()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"folder": 3}', b'{"folder": null, "overrides": 1, "error": null}']
)
def test_a_damaged_note_of_a_sweep_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    make_sweep(tmp_path)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "00000.json").write_bytes(content)
    with pytest.raises(SystemExit, match="1 left out"):
        main([str(tmp_path)])
    assert "00000.json is damaged" in capsys.readouterr().err


def test_where_tables_cannot_be_written_it_is_said(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="file"):
        main([str(tmp_path), "--out", str(tmp_path / "file")])


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--metric", "avarage_accuracy"], "Did you mean average_accuracy"),
        (["--metric", "names"], "is not a number"),
        (["--baseline", "naiv"], "Did you mean naive"),
        (["--by", "strateg"], "Did you mean strategy"),
    ],
)
def test_mistakes_are_answered(tmp_path: Path, arguments: list[str], answer: str) -> None:
    make_sweep(tmp_path)
    with pytest.raises(SystemExit, match=answer):
        main([str(tmp_path), *arguments])


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no complete run"):
        compare([tmp_path])
    with pytest.raises(DataError, match="no such folder"):
        compare([tmp_path / "nowhere"])


def test_everything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_sweep(tmp_path / "runs")
    out = tmp_path / "out"
    main([str(tmp_path / "runs"), "--baseline", "naive", "--out", str(out)])
    assert {file.name for file in out.iterdir()} == {
        *(f"comparison.{end}" for end in ("md", "csv", "tex")),
        *(f"{name}.{end}" for name in ("curves", "forgetting", "cost") for end in ("png", "pdf")),
    }
    for name in ("curves", "forgetting", "cost"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    shown = capsys.readouterr().out
    assert "84.00 ± 5.29" in shown
    assert "60.00 ± 5.00" in shown


def test_a_comparison_that_is_stopped_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sweep(tmp_path / "runs")
    out = tmp_path / "out"
    monkeypatch.setattr(plots, "save", lambda figure, stem: stem.with_suffix(".png").touch())
    write(compare([tmp_path / "runs"]), out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def stop(figure: Any, stem: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plots, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        write(compare([tmp_path / "runs"], baseline="naive"), out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_processes_that_write_one_comparison_leave_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sweep(tmp_path / "runs")
    out = tmp_path / "out"
    monkeypatch.setattr(plots, "save", lambda figure, stem: stem.with_suffix(".png").touch())
    compared = compare([tmp_path / "runs"], baseline="naive")
    at_once(3, lambda: [write(compared, out) for _ in range(2)])
    assert {file.suffix for file in out.iterdir()} == {".md", ".csv", ".tex", ".png"}
    assert (out / "comparison.md").read_text() == to_markdown(compared)
    assert (out / "comparison.csv").read_text() == to_csv(compared)


def test_the_csv_holds_the_exact_numbers(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    first, second = csv.DictReader(io.StringIO(to_csv(compare([tmp_path], baseline="naive"))))
    assert (second["group"], second["n"], second["seeds"]) == ("naive", "3", "0 1 2")
    assert float(second["average_accuracy_mean"]) == pytest.approx(0.6, abs=1e-12)
    assert float(second["average_accuracy_std"]) == pytest.approx(0.05, abs=1e-12)
    assert float(first["difference"]) == pytest.approx(0.24, abs=1e-12)
    assert float(first["confidence_low"]) == pytest.approx(0.196973, abs=1e-6)


def test_names_are_escaped_in_tables(tmp_path: Path) -> None:
    name = "a_b&c|d$"
    make_run(tmp_path, "x", 0, 0.5, names={"stream": "t", "strategy": name, "backbone": "n"})
    compared = compare([tmp_path])
    assert r"a\_b\&c|d\$" in to_latex(compared)
    assert r"a_b&c\|d$" in to_markdown(compared)
    main([str(tmp_path), "--out", str(tmp_path / "out")])  # the dollar starts no formula in a plot


def test_names_from_outside_break_no_table(tmp_path: Path) -> None:
    names = ("=HYPERLINK(1)", "a\nb & c", "d\x1b[31m\u202e")
    for name in names:
        make_run(tmp_path, name, 0, 0.5)
    compared = compare([tmp_path], baseline=names[0])
    rows = list(csv.reader(io.StringIO(to_csv(compared))))
    assert {row[0] for row in rows[1:]} == {"'=HYPERLINK(1)", "a\\nb & c", "d\\x1b[31m\\u202e"}
    assert {row[rows[0].index("baseline")] for row in rows[1:]} == {"'=HYPERLINK(1)"}
    for text, ends in ((to_markdown(compared), " |"), (to_latex(compared), r" \\")):
        assert text.replace("\n", "").isprintable()
        (line,) = (line for line in text.splitlines() if "nb" in line)
        assert line.endswith(ends)


def test_latex_is_balanced(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    text = to_latex(compare([tmp_path], baseline="naive"))
    lines = [line for line in text.splitlines() if line.endswith("\\\\")]
    columns = text.split("{tabular}{")[1].split("}")[0]
    assert {line.count(" & ") + 1 for line in lines} == {len(columns)}
    assert text.count("\\begin") == text.count("\\end")
    assert "\\textbf{84.00 $\\pm$ 5.29}" in text


def test_runs_on_other_pixels_are_not_averaged(tmp_path: Path) -> None:
    make_run(tmp_path, "olora", 0, 0.5, stream_contents="abc")
    make_run(tmp_path, "olora", 1, 0.5)  # of an older version, which looked at no pixel
    assert len(compare([tmp_path]).groups) == 1
    make_run(tmp_path, "olora", 2, 0.5, stream_contents="def")
    with pytest.raises(ConfigurationError, match="stream_contents: abc and def"):
        compare([tmp_path])
    assert len(compare([tmp_path], allow=["stream_contents"]).groups) == 1


def test_methods_on_other_pixels_are_not_compared(tmp_path: Path) -> None:
    make_run(tmp_path, "olora", 0, 0.5, stream_contents="abc")
    make_run(tmp_path, "naive", 0, 0.5, stream_contents="def")
    with pytest.raises(ConfigurationError, match="cannot be compared"):
        compare([tmp_path])


def test_a_run_that_was_changed_on_the_way_is_another(tmp_path: Path) -> None:
    change = {"key": "trainer.lr", "before": 0.2, "after": 0.1, "experience": 1, "step": 0}
    make_run(tmp_path, "olora", 0, 0.5)
    make_run(tmp_path, "olora", 1, 0.5, changes=[change])
    with pytest.raises(ConfigurationError, match=r"0\.1, from experience 1, .*before: 0\.2"):
        compare([tmp_path])
    harmless = {**change, "key": "trainer.device", "before": "cuda"}
    shutil.rmtree(tmp_path / "olora")
    make_run(tmp_path, "olora", 0, 0.5)
    make_run(tmp_path, "olora", 1, 0.5, changes=[harmless])
    assert len(compare([tmp_path]).groups) == 1
