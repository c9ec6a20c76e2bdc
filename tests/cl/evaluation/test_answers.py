"""What was answered is kept, agrees with the matrix, and is read without trust."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cl.errors import ConfigurationError, DataError, PalimpsestError
from cl.evaluation.answers import FILE, LARGE, SMALL, Answers, append, keep, read, read_array
from cl.evaluation.later import Answered, outputs_of
from cl.experiment import Experiment
from cl.loggers import ExperienceResult, Logger
from cl.matrix import AccuracyMatrix, Cell
from cl.measure import main, measure
from cl.stored import load_json
from tests.conftest import Compose


def some(task: int = 0, count: int = 4, largest: int = 3) -> np.ndarray:
    answers = Answers()
    outputs = torch.zeros(count, largest + 1)
    outputs[torch.arange(count), largest - torch.arange(count)] = 5
    answers.add(task, outputs)
    return answers.take()


def test_class_and_confidence_are_those_of_the_outputs() -> None:
    answers = Answers()
    outputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    answers.add(1, outputs[3:])
    answers.add(0, outputs[:3])
    rows = answers.take()
    assert rows.dtype == SMALL, "six bytes an answer"
    assert rows["task"].tolist() == [0, 0, 0, 1, 1, 1]
    assert rows["class"].tolist() == outputs.argmax(1).tolist()
    confidence = outputs.softmax(1).amax(1).numpy()
    assert np.allclose(rows["confidence"].astype(np.float32), confidence, atol=5e-4)
    assert not len(answers.take()), "it is forgotten once it is taken"
    assert some(largest=70_000).dtype == LARGE


def test_outputs_are_made_again() -> None:
    outputs = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    answers = Answers()
    answers.add(0, outputs)
    again = outputs_of(answers.take(), 7)
    assert torch.equal(again.argmax(1), outputs.argmax(1))
    assert torch.allclose(again.softmax(1).amax(1), outputs.softmax(1).amax(1), atol=5e-4)


@pytest.mark.parametrize(
    "outputs", [torch.zeros(2, 1), torch.zeros(2, 3000), torch.tensor([[99.0, -torch.inf]])]
)
def test_the_class_is_right_at_the_limits(outputs: Tensor) -> None:
    answers = Answers()
    answers.add(0, outputs)
    again = outputs_of(answers.take(), outputs.shape[1])
    assert again.argmax(1).tolist() == outputs.argmax(1).tolist()
    assert torch.allclose(again.softmax(1).amax(1), outputs.softmax(1).amax(1), atol=2e-3)


def test_what_was_cut_short_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / FILE
    for _ in range(3):
        append(some(), file)
    whole = file.read_bytes()
    one = len(whole) // 3
    for length in (len(whole) - 1, 2 * one + 3, 2 * one + 50):
        file.write_bytes(whole[:length])
        assert keep(file, 2)
        assert file.read_bytes() == whole[: 2 * one]
    file.write_bytes(whole + b"what is no array")
    assert keep(file, 3)
    assert file.read_bytes() == whole
    assert not keep(file, 4), "nobody can go on with answers that lack an experience"
    assert not file.exists()
    assert keep(file, 0)


COMPLETE: list[Path] = []


@pytest.fixture
def folder(compose: Compose, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A copy of a complete run, which is made once."""
    if not COMPLETE:
        where = tmp_path_factory.mktemp("complete")
        cfg = compose("strategy=simplecil", "metric=[ece]", f"output={where}")
        experiment = Experiment(cfg, loggers=[])
        experiment.run()
        COMPLETE.append(experiment.folder)
    return Path(shutil.copytree(COMPLETE[0], tmp_path / "run"))


def test_a_metric_can_be_computed_later(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = load_json(folder / "summary.json")
    numbers, reasons = measure(folder, ["metric=[ece]"])
    assert numbers == pytest.approx(summary["metrics"], abs=2e-3)
    assert reasons == {}
    main([str(folder), "metric=[ece]", "metric.ece.bins=1", "--save"])
    assert "calibration_error: 0." in capsys.readouterr().out
    saved = load_json(folder / "summary.json")
    right = sum(cell.correct for cell in AccuracyMatrix.read(folder / "accuracy_matrix.csv").row(1))
    confidence = np.concatenate([r["confidence"] for r in Answered.read(folder).rows[1:]])
    expected = abs(confidence.astype(float).mean() - right / 24)  # with one bin
    assert saved["metrics"]["calibration_error"] == pytest.approx(expected, abs=1e-6)
    assert {**saved, "metrics": 0} == {**summary, "metrics": 0}


def test_a_run_that_lost_its_answers_goes_on_without(
    compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment(compose("strategy=simplecil"), loggers=[Kill()])
    with pytest.raises(KeyboardInterrupt):
        experiment.run()
    (experiment.folder / FILE).unlink()
    Experiment.resume(experiment.folder, loggers=[], trust=["tests"]).run()
    assert "no answers are kept" in capsys.readouterr().err
    assert not (experiment.folder / FILE).exists()


class Kill(Logger):
    def experience(self, result: ExperienceResult) -> None:
        if result.index == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["strategy=naive"], "only metrics"),
        (["metric=[]"], "No metric is chosen"),
        (["metric=[top5]"], "more than class and confidence"),
        (["metric=[online]"], "more than class and confidence"),
        (["metric=[continual]"], "more than class and confidence"),
        (["metric=[eec]"], "Did you mean ece"),
        (["metric=[ece]", "metric.ece.bin=3"], "no such key"),
        (["+metric.own._target_=tests.cl.evaluation.own.Failing"], "it broke"),
    ],
)
def test_mistakes_are_answered(folder: Path, overrides: list[str], answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        measure(folder, overrides)


def test_a_run_that_kept_none_says_so(compose: Compose) -> None:
    experiment = Experiment(compose("strategy=simplecil", "evaluation.answers=false"), loggers=[])
    experiment.run()
    assert not (experiment.folder / FILE).exists()
    with pytest.raises(DataError, match="kept no answers"):
        measure(experiment.folder, ["metric=[ece]"])


def header(shape: object, descr: object = None) -> bytes:
    out = io.BytesIO()
    content = {"descr": descr or SMALL.descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, content)
    return out.getvalue()


def edited(change: Callable[[np.ndarray], None]) -> Callable[[bytes], bytes]:
    """The last experience, changed and written again."""

    def edit(raw: bytes) -> bytes:
        content = io.BytesIO(raw)
        arrays = []
        while (rows := read_array(content, Path(FILE), (SMALL,))) is not None:
            arrays.append(rows.copy())
        change(arrays[-1])
        out = io.BytesIO()
        for rows in arrays:
            np.save(out, rows)
        return out.getvalue()

    return edit


def set_to(name: str, value: float) -> Callable[[bytes], bytes]:
    return edited(lambda rows: rows.__setitem__(name, value))


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (lambda raw: raw[: len(raw) // 2], "lacks experiences"),
        (lambda raw: b"", "lacks experiences"),
        (lambda raw: b"\x80\x04 pickled", "damaged"),
        (lambda raw: header((10**15,)), "lacks experiences"),
        (lambda raw: header((-1,)), "damaged"),
        (lambda raw: header((2, 2)) + bytes(24), "damaged"),
        (lambda raw: header((2,), "|O") + bytes(16), "damaged"),
        (set_to("class", 0), r"\d right answers of 12 on task \d, but accuracy_matrix.csv"),
        (set_to("task", 0), "images of each task in turn"),
        (set_to("task", 9), "images of each task in turn"),
        (set_to("confidence", np.nan), "no share"),
        (set_to("confidence", 2), "no share"),
    ],
)
def test_damage_is_a_sentence(folder: Path, change: Callable[[bytes], bytes], answer: str) -> None:
    (folder / FILE).write_bytes(change((folder / FILE).read_bytes()))
    with pytest.raises(DataError, match=answer):
        measure(folder, ["metric=[ece]"])


def test_a_split_that_cannot_be(folder: Path) -> None:
    file = folder / "split.npz"
    with zipfile.ZipFile(file) as archive:
        columns = {name: archive.read(name) for name in archive.namelist()}

    def written(name: str, content: bytes) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, value in {**columns, name: content}.items():
                archive.writestr(key, value)

    def column(*values: int) -> bytes:
        out = io.BytesIO()
        np.save(out, np.array(values, dtype=np.int64))
        return out.getvalue()

    changes = (
        ("test_labels.npy", b""),
        ("test_labels.npy", column(*range(24))),
        ("test_lengths.npy", column(25, -1)),
        ("test_lengths.npy", column(2**62, 2**62)),
        ("train_lengths.npy", column(48)),
        ("test_labels.npy", header((10**15,), "<i8")),
    )
    for name, content in changes:
        written(name, content)
        with pytest.raises(DataError, match=r"split\.npz is damaged"):
            Answered.read(folder)
    file.unlink()
    with pytest.raises(PalimpsestError, match="missing"):
        Answered.read(folder)
    shutil.rmtree(folder / "learner")
    with pytest.raises(PalimpsestError, match="missing"):
        Answered.read(folder)


def test_a_matrix_with_other_counts(tmp_path: Path) -> None:
    append(some(count=4), tmp_path / FILE)
    labels = [np.arange(4)[::-1]]
    (rows,) = read(tmp_path / FILE, AccuracyMatrix([Cell(0, 0, 4, 4, 4)]), labels)
    assert rows["class"].tolist() == [3, 2, 1, 0]
    with pytest.raises(DataError, match="4 right answers of 4"):
        read(tmp_path / FILE, AccuracyMatrix([Cell(0, 0, 4, 3, 4)]), labels)


def test_where_the_stream_tells_the_task_the_answer_is_among_its_classes(compose: Compose) -> None:
    cfg = compose(
        *("strategy=naive", "stream._target_=tests.cl.evaluation.test_answers.told", "metric=[ece]")
    )
    experiment = Experiment(cfg, loggers=[])
    experiment.run()
    found = Answered.read(experiment.folder)  # the counts agree
    tasks, classes = found.rows[1]["task"], found.rows[1]["class"]
    assert bool((classes // 2 == tasks).all())


def told() -> object:
    """A stream that tells the task."""
    from dataclasses import replace

    from tests.conftest import toy_stream

    return replace(toy_stream(), scenario="task-incremental")
