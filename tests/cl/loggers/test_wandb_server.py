"""What the wandb logger does when there is no server, or one that does not answer, or dies."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import wandb

import configs
from cl.loggers.wandb import WandbLogger
from tests.cl.loggers.events import result, run_info, step, summary
from tests.cl.loggers.wandb_files import Stored

ROOT = Path(configs.__file__).parent.parent
KEY = "0123456789" * 4


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
