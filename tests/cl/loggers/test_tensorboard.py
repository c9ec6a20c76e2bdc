"""The event file, read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cl.loggers.tensorboard import TensorBoardLogger
from tests.cl.loggers.events import tell


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def series(events: EventAccumulator, name: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(name)}


def test_every_series_is_in_the_event_file(tmp_path: Path) -> None:
    tell(TensorBoardLogger(), tmp_path)
    events = read(tmp_path)
    assert list(series(events, "train/loss")) == [5, 10, 15, 20, 25, 30]
    assert series(events, "train/penalty")[5] == pytest.approx(0.1)
    assert series(events, "train/lr")[30] == pytest.approx(1e-3)
    assert series(events, "test/average_accuracy") == pytest.approx({0: 0.9, 1: 0.75, 2: 0.7})
    assert series(events, "test/forgetting") == pytest.approx({1: 0.2, 2: 0.3})
    assert series(events, "test/accuracy/task_2") == pytest.approx({1: 0.8, 2: 0.5})
    assert series(events, "learnt/overlap") == pytest.approx({0: 0, 1: 0.25, 2: 0.5})
    assert series(events, "cost/stored_numbers") == {0: 1000, 1: 2000, 2: 3000}
    (picture,) = events.Images("matrix/heat_map")
    assert picture.step == 2
    assert picture.encoded_image_string.startswith(b"\x89PNG")
    text = events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "seed: 3" in text


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    tell(TensorBoardLogger(), tmp_path, last=1, finish=False)
    tell(TensorBoardLogger(), tmp_path, first=1)
    events = read(tmp_path)
    assert set(series(events, "test/average_accuracy")) == {0, 1, 2}
