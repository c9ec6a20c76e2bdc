"""What wandb wrote into a folder, read from its own files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record

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
