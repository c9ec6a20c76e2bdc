"""What wandb really writes, read back from its own files; and what it does without a server."""

from __future__ import annotations

import http.server
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

import configs
from cl.errors import ConfigurationError
from cl.experiment import Experiment
from cl.loggers.wandb import WandbLogger
from tests.cl.loggers.events import R, result, run_info, step, summary, tell
from tests.conftest import Compose

ROOT = Path(configs.__file__).parent.parent
BLOCK = 32768


def records(file: Path) -> Iterator[Record]:
    """The records of a .wandb file: LevelDB's log format after a header of seven bytes."""
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    position, parts = 7, b""
    while position < len(content):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


class Stored:
    """The content of the one wandb run in a folder that was logged last."""

    def __init__(self, folder: Path) -> None:
        wandb.teardown()  # its service writes the last records when it ends, as at the end of a program
        self.file = max((folder / "wandb").glob("*run-*/*.wandb"), key=lambda f: f.stat().st_mtime)
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        self.exit_code: int | None = None
        for record in records(self.file):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                self.rows.append(_items(record.history.item))
            elif kind == "summary":
                self.summary |= _items(record.summary.update)
            elif kind == "run":
                self.run = record.run
                self.config |= _items(record.run.config.update)
            elif kind == "metric":
                metric = record.metric
                self.axes[metric.glob_name or metric.name] = metric.step_metric
            elif kind == "exit":
                self.exit_code = record.exit.exit_code

    def series(self, name: str, axis: str) -> dict[float, float]:
        return {row[axis]: row[name] for row in self.rows if name in row}


def _items(items: Any) -> dict[str, Any]:
    return {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}


def test_every_promised_series_is_in_wandbs_own_files(tmp_path: Path) -> None:
    tell(WandbLogger(mode="offline", tags=["mine"]), tmp_path)
    stored = Stored(tmp_path)
    assert stored.run.project == "palimpsest"
    assert stored.run.run_group == "toy/nano/test"
    assert set(stored.run.tags) == {"mine", "toy", "test", "nano"}
    assert stored.run.run_id == json.loads((tmp_path / "wandb.json").read_text())["id"]
    assert stored.config["strategy"] == {"_target_": "a.B", "strength": 0.5}
    assert stored.config["seed"] == 3
    assert stored.config["pretrained"] == "nano, 1.0"
    steps = [5, 10, 15, 20, 25, 30]
    for name, first in (("loss", 0.4), ("cross_entropy", 0.3), ("penalty", 0.1), ("lr", 1e-3)):
        series = stored.series(f"train/{name}", "step")
        assert list(series) == steps
        assert series[5] == pytest.approx(first)
    assert stored.series("train/images_per_second", "step")[30] == 100
    for task in range(3):
        column = stored.series(f"test/accuracy/task_{task + 1}", "experience")
        assert column == {i: R[i, task] for i in range(task, 3)}
    assert stored.series("test/average_accuracy", "experience") == pytest.approx(
        {0: 0.9, 1: 0.75, 2: 0.7}
    )
    assert stored.series("test/forgetting", "experience") == pytest.approx({1: 0.2, 2: 0.3})
    assert stored.series("learnt/overlap", "experience") == {0: 0, 1: 0.25, 2: 0.5}
    assert stored.series("cost/training_seconds", "experience") == {0: 2, 1: 3, 2: 4}
    assert stored.series("cost/evaluation_seconds", "experience") == {0: 1, 1: 1, 2: 1}
    assert stored.series("cost/stored_numbers", "experience")[2] == 3000
    assert stored.series("cost/peak_memory_bytes", "experience")[2] == 3 * 2**20
    assert stored.summary["average_accuracy"] == pytest.approx(0.7)
    assert stored.summary["within_task.forgetting"] == pytest.approx(0.3)
    assert stored.exit_code == 0


def test_each_series_has_its_own_axis(tmp_path: Path) -> None:
    tell(WandbLogger(mode="offline"), tmp_path)
    stored = Stored(tmp_path)
    assert stored.axes["train/*"] == "step"
    assert {stored.axes[f"{part}/*"] for part in ("test", "learnt", "cost")} == {"experience"}
    for row in stored.rows:
        assert "step" in row or "experience" in row


def test_the_matrix_is_a_table_and_a_picture(tmp_path: Path) -> None:
    tell(WandbLogger(mode="offline"), tmp_path)
    stored = Stored(tmp_path)
    files = stored.file.parent / "files"
    last = [row for row in stored.rows if "matrix/table.path" in row][-1]
    table = json.loads((files / last["matrix/table.path"]).read_text())
    assert table["columns"] == ["after task", "task 1", "task 2", "task 3"]
    assert table["data"] == [[1, 0.9, None, None], [2, 0.7, 0.8, None], [3, 0.6, 0.5, 1.0]]
    assert (files / last["matrix/heat_map.path"]).read_bytes().startswith(b"\x89PNG")
    assert last["matrix/heat_map.width"] > 100


def test_a_resumed_run_goes_on_in_the_same_place(tmp_path: Path) -> None:
    logger = WandbLogger(mode="offline")
    logger.start(run_info(tmp_path))
    for index in (0, 1):
        logger.step(step(index, 5))
        logger.step(step(index, 10))
        if index == 0:
            logger.experience(result(0))
    logger.close()  # interrupted before the second experience was evaluated
    first = Stored(tmp_path)
    assert first.exit_code == 1
    tell(WandbLogger(mode="offline", project="another"), tmp_path, first=1)
    second = Stored(tmp_path)
    assert second.file != first.file
    assert second.run.run_id == first.run.run_id
    assert second.run.project == "palimpsest"
    numbers = {row["_step"]: row for row in first.rows}
    again = {row["_step"]: row for row in second.rows if row["_step"] in numbers}
    assert len(again) == 2, "the two rows of the experience that was begun"
    for number, row in again.items():
        assert row["train/loss"] == numbers[number]["train/loss"]
    assert min({row["_step"] for row in second.rows} - set(numbers)) > max(numbers)


def test_the_run_folder_goes_along_if_asked(tmp_path: Path) -> None:
    (tmp_path / "accuracy_matrix.csv").write_text("experience,task\n")
    tell(WandbLogger(mode="offline", save_artifact=True), tmp_path)
    stored = Stored(tmp_path)
    artifacts = [
        r.artifact for r in records(stored.file) if r.WhichOneof("record_type") == "artifact"
    ] + [
        r.request.log_artifact.artifact
        for r in records(stored.file)
        if r.WhichOneof("record_type") == "request"
    ]
    names = {entry.path for artifact in artifacts for entry in artifact.manifest.contents}
    assert "accuracy_matrix.csv" in names
    assert not any(name.startswith("wandb/") for name in names)


def test_disabled_does_nothing(tmp_path: Path) -> None:
    tell(WandbLogger(mode="disabled"), tmp_path)
    assert not list(tmp_path.iterdir()), "not even its own folder"


def test_a_wrong_mode_is_answered() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean offline"):
        WandbLogger(mode="ofline")  # type: ignore[arg-type]


class Server(http.server.BaseHTTPRequestHandler):
    """Answers every request with `code`, or not before `delay` seconds have passed."""

    code, delay = 200, 0.0

    def answer(self) -> None:
        time.sleep(self.delay)
        self.send_response(self.code)
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = answer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def server(code: int, delay: float) -> Iterator[str]:
    handler = type("Handler", (Server,), {"code": code, "delay": delay})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        made.daemon_threads, made.block_on_close = True, False
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def online(monkeypatch: pytest.MonkeyPatch, folder: Path, url: str, key: str | None) -> None:
    wandb.teardown()  # it remembers the server and the key
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("NETRC", str(folder / "no-netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)


KEY = "0123456789" * 4


@pytest.mark.parametrize(
    ("code", "delay", "key"), [(200, 0, None), (401, 0, KEY), (200, 30, KEY), (None, 0, KEY)]
)
def test_without_a_server_the_run_goes_on_and_its_data_are_kept(
    code: int | None,
    delay: float,
    key: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No key, a wrong key, a server that hangs, and nothing at the address."""
    with server(code or 200, delay) as url:
        if code is None:
            url = "http://127.0.0.1:9"  # the port "discard": nobody listens
        online(monkeypatch, tmp_path, url, key)
        logger = WandbLogger(timeout=3.0)
        spent = 0.0
        start = time.perf_counter()
        logger.start(run_info(tmp_path))
        for index in range(3):
            for number in (5, 10):
                logger.step(step(index, number))
            logger.experience(result(index))
        spent = time.perf_counter() - start
        logger.finish(summary())
        logger.close()
    assert spent < 0.5, "the training never waits"
    stored = Stored(tmp_path)
    assert "offline-run" in str(stored.file)
    assert len(stored.series("train/loss", "step")) == 6
    assert stored.summary["average_accuracy"] == pytest.approx(0.7)
    said = capfd.readouterr().err
    assert said.count("Weights & Biases cannot be used online") == 1
    assert "wandb sync" in said
    assert "Traceback" not in said


class Mortal(http.server.BaseHTTPRequestHandler):
    """As much of wandb's server as a run needs to begin, until it dies."""

    protocol_version = "HTTP/1.1"
    alive = threading.Event()

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.alive.is_set():
            self.close_connection = True
            self.connection.close()
            return
        project = {"id": "p", "name": "palimpsest", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "aWQ=", "name": "x", "displayName": "x", "config": "{}", "project": project}
        viewer = {
            "id": "1",
            "entity": "me",
            "username": "me",
            "flags": "{}",
            "teams": {"edges": []},
        }
        server = {"cliVersionInfo": {"max_cli_version": "0.31.0"}, "features": []}
        data: dict[str, Any] = {
            "viewer": viewer,
            "upsertBucket": {"bucket": bucket, "inserted": True},
        }
        data["serverInfo"] = server
        content = json.dumps({"data": {**data, "model": {"bucket": None}}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


PROGRAM = """
import json, sys, time
from pathlib import Path
from cl.loggers.wandb import WandbLogger
from tests.cl.loggers.events import result, run_info, step, summary

logger = WandbLogger(timeout=5.0)
logger.start(run_info(Path(sys.argv[1])))
logger.step(step(0, 5))
while logger.wandb_run is None or not logger.calls.empty():
    time.sleep(0.1)
print(logger.wandb_run.settings.mode, flush=True)
sys.stdin.readline()  # the server has died
start = time.perf_counter()
logger.step(step(0, 10))
logger.experience(result(0))
for index in (1, 2):
    for number in (5, 10):
        logger.step(step(index, number))
    logger.experience(result(index))
print(time.perf_counter() - start, flush=True)
logger.finish(summary())
logger.close()
"""


def test_a_server_that_goes_away_in_mid_run_stops_and_slows_nothing(tmp_path: Path) -> None:
    """A program of its own, so that its end is seen too."""
    Mortal.alive.set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mortal) as made:
        made.daemon_threads, made.block_on_close = True, False
        threading.Thread(target=made.serve_forever, daemon=True).start()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_API_KEY": KEY}
        environment["WANDB_BASE_URL"] = f"http://127.0.0.1:{made.server_port}"
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        assert program.stdout.readline() == "online\n", "the server was there at the beginning"
        Mortal.alive.clear()
        start = time.perf_counter()
        out, said = program.communicate("dead\n", timeout=120)
        waited = time.perf_counter() - start
        made.shutdown()
    assert program.returncode == 0
    assert float(out) < 0.5, "the training never waits"
    assert waited < 60, "nor does the end wait for ever"
    assert said.count("Weights & Biases") == 1
    assert "wandb sync" in said
    assert "Traceback" not in said
    stored = Stored(tmp_path)
    assert list(stored.series("train/loss", "step")) == [5, 10, 15, 20, 25, 30], "nothing is lost"
    assert len(stored.series("test/average_accuracy", "experience")) == 3


def test_an_error_of_wandb_is_said_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(self: WandbLogger, R: np.ndarray) -> dict[str, Any]:
        raise OSError("no space left")

    monkeypatch.setattr(WandbLogger, "_pictures", fail)
    tell(WandbLogger(mode="offline"), tmp_path)
    assert capfd.readouterr().err.count("Weights & Biases failed (no space left)") == 1


def test_a_real_run(compose: Compose) -> None:
    cfg = compose("strategy=ewc", "logger=[files,wandb]", "logger.wandb.mode=offline")
    experiment = Experiment(cfg)
    summary = experiment.run()
    stored = Stored(experiment.folder)
    assert stored.config["strategy"]["strength"] == 1e4
    assert stored.summary["average_accuracy"] == pytest.approx(summary["average_accuracy"])
    steps = stored.series("train/loss", "step")
    assert max(steps) == experiment.steps
    assert stored.series("train/penalty", "step")
    assert stored.series("train/cross_entropy", "step").keys() == steps.keys()
