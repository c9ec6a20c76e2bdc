"""What every stream must satisfy. A new file in configs/stream/ is here without being named."""

from __future__ import annotations

import inspect
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from omegaconf import OmegaConf, open_dict

import configs
from cl.data.datasets import MissingDataError
from cl.errors import DataError
from cl.experiment import Experiment
from cl.instantiate import build, locate
from cl.stream import Stream
from tests.conftest import Compose, composed, toy_images, toy_stream

FOLDER = Path(configs.__file__).parent / "stream"
ALL = sorted(file.stem for file in FOLDER.glob("*.yaml") if file.stem != "custom")


@cache
def made(name: str) -> Stream | None:
    """The stream as configured; None if it needs data or a path that come with no package."""
    cfg = composed(f"stream={name}")
    if OmegaConf.missing_keys(cfg.stream):
        return None
    nothing = {"CL_DATA_DIR": tempfile.gettempdir() + "/nothing", "CL_OFFLINE": "1"}
    try:
        with mock.patch.dict(os.environ, nothing):
            stream = build(cfg.stream, "stream")
    except MissingDataError:
        return None
    assert isinstance(stream, Stream)
    return stream


HERE = ["toy", *(name for name in ALL if made(name) is not None)]


@pytest.fixture(params=HERE)
def stream(request: pytest.FixtureRequest) -> Stream:
    return toy_stream() if request.param == "toy" else made(request.param)


def some(stream: Stream) -> list[int]:
    """All experiences, or the first and the last of a long stream."""
    count = len(stream)
    return list(range(count)) if count <= 20 else [*range(10), *range(count - 10, count)]


def test_most_streams_are_here() -> None:
    assert {"split_digits", "class_incremental", "si_blurry", "rotated", "synthetic"} <= set(HERE)


def test_experiences_follow_each_other(stream: Stream) -> None:
    for index in some(stream):
        experience = stream.experience(index)
        before = stream.seen[index - 1] if index else 0
        assert experience.index == index
        if experience.labelled:
            assert set(experience.train.targets) == set(experience.classes)
        else:
            assert experience.classes == ()
            assert set(experience.train.labels) == {-1}
        assert set(experience.new_classes) == set(range(before, experience.seen))
        assert set(experience.new_classes) <= set(experience.classes)
        assert all(c < experience.seen for c in experience.classes), "numbered by arrival"
        assert experience.names == tuple(stream.class_names[: experience.seen])
        assert (experience.task is not None) == (stream.scenario == "task-incremental")
    assert stream.seen[len(stream) - 1] == len(stream.class_names)


def labelled(stream: Stream, index: int) -> bool:
    return bool((stream.train[index].targets >= 0).all())


def digests(stream: Stream, parts: str) -> set[bytes]:
    chosen = [index for index in some(stream) if parts == "test" or labelled(stream, index)]
    sets = [getattr(stream, parts)[index] for index in chosen]
    return {image.tobytes() for data in sets for image in data.take(np.arange(len(data)))[0]}


def test_no_image_is_in_training_and_test(stream: Stream) -> None:
    assert not digests(stream, "train") & digests(stream, "test")


def test_test_sets_hold_the_classes_of_their_task(stream: Stream) -> None:
    for index in some(stream):
        tested = set(stream.test[index].targets)
        if labelled(stream, index):
            assert set(stream.train[index].targets) == tested
        else:
            assert tested <= set(range(stream.seen[index]))


def test_images_are_the_same_alone_and_in_a_batch(stream: Stream) -> None:
    data = stream.train[len(stream) - 1]
    together = data.take(np.arange(min(8, len(data))))[0]
    assert together.dtype == np.uint8
    assert together.shape[1:] == data.images.shape[1:]
    for position, image in enumerate(together):
        assert np.array_equal(data.take(np.array([position]))[0][0], image)


def test_the_same_configuration_gives_the_same_images(stream: Stream) -> None:
    name = next((name for name in HERE[1:] if made(name) is stream), None)
    again = toy_stream() if name is None else build(composed(f"stream={name}").stream, "stream")
    assert again.fingerprint() == stream.fingerprint()
    assert len(stream.fingerprint()) == 16


def test_the_split_tells_every_image(stream: Stream) -> None:
    split = stream.split()
    for part in ("train", "test"):
        assert split[f"{part}_lengths"].sum() == len(split[f"{part}_rows"])
        assert len(split[f"{part}_lengths"]) == len(stream)
        assert len(split[f"{part}_labels"]) == len(split[f"{part}_rows"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of ten classes, 12 images each, 8 × 8 pixels."""
    data = toy_images(120, 10, 0)
    file = tmp_path_factory.mktemp("small") / "small.npz"
    np.savez(file, images=data.images, labels=data.labels)
    return file


def few(name: str, small: Path) -> list[str]:
    """Overrides that make the stream short, if it takes any data set or any length."""
    keys = composed(f"stream={name}").stream
    wanted = {"dataset": small, "datasets": f"[{small},{small}]", "experiences": 3, "chunks": 3}
    wanted |= {"tasks": 2, "shots": 3, "imbalance": 4, "corruptions": "[fog,shot_noise]"}
    return [f"stream.{key}={value}" for key, value in wanted.items() if key in keys]


@pytest.mark.parametrize("strategy", ["naive", "olora", "simplecil"])
@pytest.mark.parametrize("name", HERE[1:])
def test_runs_with(compose: Compose, small: Path, name: str, strategy: str) -> None:
    cfg = compose(f"strategy={strategy}", "trainer.epochs=1", "trainer.batch_size=64")
    with open_dict(cfg):
        cfg.stream = composed(f"stream={name}", *few(name, small)).stream
    experiment = Experiment(cfg, loggers=[])
    if not all(labelled(experiment.stream, index) for index in range(len(experiment.stream))):
        with pytest.raises(
            DataError, match=r"have no labels, and the strategy .* learns from labels"
        ):
            experiment.run()
        return
    summary = experiment.run()
    assert 0 <= summary["average_accuracy"] <= 1
    assert np.isfinite(np.diag(experiment.matrix.values())).all()
    assert (summary["forward_transfer"] is not None) == (
        experiment.stream.scenario == "domain-incremental" and len(experiment.stream) > 1
    )
    with np.load(experiment.folder / "split.npz") as split:
        assert str(split["fingerprint"]) == summary["stream_fingerprint"]


@pytest.mark.parametrize("name", ALL)
def test_yaml_has_the_command_and_the_arguments(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    command = text.splitlines()[1]
    assert command.startswith("# python run.py ")
    overrides = command.removeprefix("# python run.py ").split()
    assert f"stream={name}" in overrides
    composed(*overrides)
    node: Any = OmegaConf.to_container(composed(f"stream={name}").stream)
    target = locate(node.pop("_target_"), "stream")
    parameters = inspect.signature(target).parameters
    assert list(node) == list(parameters), "the same keys as the function, in the same order"
    assert target.__doc__
