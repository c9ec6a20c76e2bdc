"""Stored files are plain data: whatever is in them, they are read soon or refused in a sentence."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cl.checkpoint import seal
from cl.errors import ConfigurationError, DataError, PalimpsestError, WeightsError
from cl.experiment import Experiment
from cl.learner import Learner
from cl.matrix import AccuracyMatrix
from cl.report.groups import read_jobs
from cl.report.runs import Run, read_events
from cl.run_folder import load_run_config
from cl.stored import (
    JSON_BYTES,
    LINE_BYTES,
    YAML_BYTES,
    as_config,
    fields,
    json_lines,
    load_json,
    load_yaml,
)
from streams.datasets.arrays import array_folder
from tests.cl.report.folders import make_run
from tests.conftest import Compose, toy_stream

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
DOUBLING = "a0: x\n" + "".join(f"a{i}: ${{a{i - 1}}}${{a{i - 1}}}\n" for i in range(1, 40))


def written(tmp_path: Path, text: str | bytes, name: str = "config.yaml") -> Path:
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "aliases"),
        ("a: &a [*a]", "aliases"),
        ("<<: &m {a: 1}\nb: {<<: *m}", "aliases"),
        ("a: !!python/object/apply:os.system ['true']", "tags"),
        ("!!python/name:os.system", "tags"),
        ("a: !!binary aGVsbG8=", "tags"),
        ("!!set {a, b}", "tags"),
        ("a: !own 1", "tags"),
        ("a: [1, 2", "damaged"),
        ("a: \x00", "damaged"),
        (b"a: \xff\xfe", "damaged"),
        ("[" * 100_000, "nested too deeply"),
        ("- " * 50_000, "nested too deeply"),
        ("a: 1" + ":1" * 6_000, "more than 10,000 characters"),
        ("a: " + "1:" * 4_000 + "1.5", "damaged"),
        ("a: " + "9" * 9_000, "damaged"),
        ("{[1]: 2}", "damaged"),
        ("a: 1\n" * (YAML_BYTES // 5 + 1), "more than 256 KB"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match=message) as refused:
        load_yaml(written(tmp_path, text))
    assert len(str(refused.value)) < 500
    assert time.monotonic() - start < 10


def test_yaml_is_read_as_it_was_written(tmp_path: Path) -> None:
    content = {
        "numbers": [1, -2, 0.1, 1e-5, 1e22, float("inf"), True, None],
        "texts": ["1e4", "on", "null", "2020-01-01", "a: b", "1:30", "0x10", "~", "", "=", "<<"],
        "nested": {"1": {"two": []}, "empty": {}},
    }
    OmegaConf.save(OmegaConf.create(content), tmp_path / "config.yaml")
    assert load_yaml(tmp_path / "config.yaml") == content
    by_hand = written(tmp_path, "a: 1e4\nb: 1e-4\nc: 2020-01-01\nd: -.5E3\ne: 1e\n")
    values = {"a": 1e4, "b": 1e-4, "c": "2020-01-01", "d": -500.0, "e": "1e"}
    assert load_yaml(by_hand) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"a": ', "damaged"),
        ("", "damaged"),
        (b"\xff", "damaged"),
        ("9" * 10_000, "damaged"),
        (" " * (JSON_BYTES + 1), "more than 16 MB"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_json(written(tmp_path, text), WeightsError)


@pytest.mark.parametrize("load", [load_json, load_yaml])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in {"pipe": "is no file", ".": "is no file", "none": "is missing"}.items():
        with pytest.raises(DataError, match=message):
            load(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "a\0b")


def test_lines_that_are_no_events_are_left_out(tmp_path: Path) -> None:
    event = {"event": "experience", "experience": 0}
    lines = [json.dumps(event), "[1]", "3", '{"event": "experience"}', '{"event": ["step"]}']
    lines += ['{"event": "step", "experience": 0, "step": "x", "total_steps": 1}', "[" * 9_000]
    file = written(tmp_path, "\n".join([*lines, '{"event": "st']), "metrics.jsonl")
    assert list(read_events(file)) == [(lines[0], event)]
    assert list(read_events(tmp_path / "none")) == []
    with file.open("a") as more:
        more.write("x" * (LINE_BYTES + 1))
    with pytest.raises(DataError, match="a line has more than 1 MB"):
        list(json_lines(file))


@pytest.mark.parametrize(
    "text", ["${oc.env:TOKEN}", "a${b}c", "${" * 500, r"\${x}", "${oc.decode:'[1]'}"]
)
@pytest.mark.parametrize("where", ["key", "value", "list"])
def test_no_interpolation_in_stored_data(text: str, where: str) -> None:
    content: dict[str, Any] = {"a": {"key": {text: 1}, "value": text, "list": [[text]]}[where]}
    with pytest.raises(ConfigurationError, match="Nothing is looked up"):
        as_config(content, "it")


@pytest.mark.parametrize(
    "content",
    [[], None, "text", {"a": list(range(200_000))}, {None: 1}, {"a": {1.5: object()}}],
)
def test_what_is_no_configuration(content: Any) -> None:
    with pytest.raises(ConfigurationError, match="is damaged"):
        as_config(content, "it")
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    with pytest.raises(ConfigurationError, match="deeper than"):
        as_config(deep, "it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no object"),
        ({}, "n is missing"),
        ({"n": True}, "n must be int or null, not bool"),
        ({"n": "1"}, "n must be int or null, not str"),
    ],
)
def test_fields_are_there_and_of_their_types(content: Any, message: str) -> None:
    assert fields({"n": None, "more": 1}, "it", {"n": int | None})
    with pytest.raises(DataError, match=message):
        fields(content, "it", {"n": int | None})


def stored_run(compose: Compose, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A folder with the config.yaml of a run and `change` made to it."""
    content: Any = OmegaConf.to_container(compose("strategy=naive", "logger=[files]"), resolve=True)
    change(content)
    return written(folder, json.dumps(content)).parent  # JSON is YAML


@pytest.mark.parametrize(
    "place",
    [
        ("names", "stream"),
        ("output",),
        ("strategy", "_target_"),
        ("strategy", "more"),
        ("backbone", "name"),
        ("logger", "files", "report"),
        ("trainer", "device"),
    ],
)
def test_a_secret_stays_where_it_is(
    compose: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    place: tuple[str, ...],
) -> None:
    monkeypatch.setenv("TOKEN", "very-secret")

    def change(content: dict[str, Any]) -> None:
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = "${oc.env:TOKEN}"

    folder = stored_run(compose, tmp_path, change)
    with pytest.raises(ConfigurationError, match=r"\$\{oc.env:TOKEN\}") as refused:
        Experiment.resume(folder, trust=["tests"])
    shown = capfd.readouterr()
    assert "very-secret" not in f"{refused.value}{shown.out}{shown.err}"
    for file in folder.rglob("*"):
        assert not file.is_file() or b"very-secret" not in file.read_bytes()


@pytest.mark.parametrize("text", [LAUGHS, DOUBLING])
def test_what_grows_when_it_is_resolved_is_refused_at_once(tmp_path: Path, text: str) -> None:
    written(tmp_path, text)
    start = time.monotonic()
    with pytest.raises(ConfigurationError):
        Experiment.resume(tmp_path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.clear(), "is missing"),
        (lambda c: c.pop("strategy"), "strategy is missing"),
        (lambda c: c.pop("stream"), "stream is missing"),
        (lambda c: c.pop("names"), "names.backbone is missing"),
        (lambda c: c.update(names=["a"]), "damaged"),
        (lambda c: c.update(seed="x"), "seed"),
        (lambda c: c.update(trainer=3), "trainer: "),
        (lambda c: c["trainer"].update(epochs="many"), "epochs"),
        (lambda c: c["trainer"].update(epochs=-1), "at least 1"),
        (lambda c: c["trainer"].update(milestones={"a": 1}), "trainer: "),
        (lambda c: c["trainer"].update(unknown=1), "unknown"),
        (lambda c: c["backbone"].pop("name"), "backbone.name is missing"),
        (lambda c: c["strategy"].pop("_target_"), "no strategy._target_"),
        (lambda c: c.update(strategy=None), "no strategy._target_"),
        (lambda c: c.update(plugin=[1]), "plugin"),
        (lambda c: c.update(logger="console"), "logger"),
        (lambda c: c.update(cache=[]), "cache: "),
    ],
)
def test_a_damaged_configuration_is_a_sentence(
    compose: Compose, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    folder = stored_run(compose, tmp_path, change)
    with pytest.raises(ConfigurationError, match=message):
        Experiment.resume(folder, loggers=[], trust=["tests"])


@pytest.mark.parametrize("text", ["", "text", "- 1", "a: [", "3", "null"])
def test_what_is_no_mapping_is_a_sentence(tmp_path: Path, text: str) -> None:
    written(tmp_path, text)
    with pytest.raises(ConfigurationError, match="damaged"):
        load_run_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("recipe"), "recipe cannot be"),
        (lambda c: c["recipe"].pop("strategy"), "recipe cannot be"),
        (lambda c: c["recipe"].pop("plugin"), "recipe cannot be"),
        (lambda c: c["recipe"].update(seed="x"), "recipe cannot be"),
        (lambda c: c["recipe"].update(trainer={"epochs": "x"}), "epochs"),
        (lambda c: c["recipe"].update(trainer={"x": 1}), "x"),
        (lambda c: c["recipe"].update(backbone={}), "missing mandatory value: name"),
        (lambda c: c["recipe"]["backbone"].update(name="${oc.env:HOME}"), "looked up"),
        (lambda c: c["recipe"].update(strategy={}), "no strategy._target_"),
        (lambda c: c.update(format=999), "newer version"),
        (lambda c: c.update(stream={"name": "x"}), "stream cannot be"),
        (lambda c: c.update(class_names=[1, 2]), "class_names"),
        (lambda c: c.update(class_names=["a", "a"], experiences=1), "class_names"),
        (lambda c: c.update(experiences=-5), "experiences cannot be -5"),
        (lambda c: c.update(image_shape=[8, None]), "image_shape cannot be"),
        (lambda c: c.update(augmentation="none such"), "augment"),
    ],
)
def test_a_damaged_learner_is_a_sentence(
    compose: Compose, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    Learner(compose("strategy=naive"), toy_stream().info).save(tmp_path)
    content = json.loads((tmp_path / "learner.json").read_text())
    change(content)
    (tmp_path / "learner.json").write_text(json.dumps(content))
    seal(tmp_path)
    with pytest.raises(PalimpsestError, match=message):
        Learner.load(tmp_path)


def test_names_are_never_looked_up(compose: Compose, tmp_path: Path) -> None:
    """They are no configuration: any text may be the name of a class."""
    learner = Learner(compose("strategy=naive"), toy_stream().info)
    learner.class_names, learner.experiences = ("${oc.env:HOME}", "b"), 1
    learner.save(tmp_path)
    assert Learner.load(tmp_path).class_names == ("${oc.env:HOME}", "b")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", "[" * 100_000),
        ("summary.json", "[]"),
        ("summary.json", '{"seed": "x", "names": {}}'),
        ("config.yaml", LAUGHS),
        ("config.yaml", "- 1"),
        ("config.yaml", "a: !!python/name:os.system"),
        ("accuracy_matrix.csv", ""),
        ("accuracy_matrix.csv", "experience,task,images,correct\n999999999,0,1,1\n"),
        ("accuracy_matrix.csv", "experience,task,images,correct\n0,0,0,0\n"),
        ("accuracy_matrix.csv", "experience,task,images,correct\n0,-1,1,1\n"),
        ("accuracy_matrix.csv", "experience,task,images,correct\n0,0,1,2\n"),
        ("accuracy_matrix.csv", b"\xff\xfe\x00"),
    ],
)
def test_a_damaged_run_is_a_sentence(tmp_path: Path, name: str, text: str | bytes) -> None:
    folder = make_run(tmp_path, "naive", 0, 0.5)
    assert (
        Run.load(folder).accuracy.shape
        == AccuracyMatrix.read(folder / "accuracy_matrix.csv").values().shape
    )
    written(folder, text, name)
    with pytest.raises(DataError, match=name):
        Run.load(folder)


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", '{"overrides": 1, "folder": null, "error": null}', "[" * 100_000]
)
def test_damaged_notes_of_a_sweep_are_a_sentence(tmp_path: Path, text: str) -> None:
    make_run(tmp_path, "naive", 0, 0.5)
    (tmp_path / "jobs").mkdir()
    written(tmp_path / "jobs", text, "00000.json")
    with pytest.raises(DataError, match=r"00000.json is damaged"):
        read_jobs(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1.5, 2]", '"ab"', "[" * 100_000])
def test_damaged_names_of_classes_are_a_sentence(tmp_path: Path, text: str) -> None:
    written(tmp_path, text, "classes.json")
    with pytest.raises(DataError, match=r"classes\.json"):
        array_folder("mine", tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"seconds": "x", "steps": 1}'])
def test_a_checkpoint_with_damaged_counts_is_passed_over(
    compose: Compose, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    experiment = Experiment(compose("strategy=naive"), loggers=[])
    OmegaConf.save(experiment.cfg, experiment.folder / "config.yaml", resolve=True)
    with experiment.checkpoints.writing(0) as folder:
        (folder / "progress.json").write_text(text)
        experiment.learner.save(folder)
    experiment.matrix.write(experiment.folder / "accuracy_matrix.csv")
    resumed = Experiment.resume(experiment.folder, loggers=[], trust=["tests"])
    assert (resumed.matrix.rows, resumed.steps) == (0, 0)
    assert "progress.json is damaged" in capsys.readouterr().err


def test_a_report_looks_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "very-secret")
    folder = make_run(tmp_path, "naive", 0, 0.5)
    with (folder / "config.yaml").open("a") as file:
        file.write("more: ${oc.env:TOKEN}\n")
    assert Run.load(folder).config["more"] == "${oc.env:TOKEN}"
