"""A checkpoint between two steps: the next step is the same, and what cannot be one is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

from cl.learner import Learner
from cl.midway import TENSORS, VALUES, MidwayError
from cl.strategy import Progress
from tests.conftest import toy_stream


@pytest.fixture(scope="module")
def cfg() -> DictConfig:
    small = ["backbone.image_size=8", "backbone.pretrained=false", "trainer.device=cpu"]
    small += ["trainer.batch_size=8", "trainer.epochs=2"]
    with initialize_config_module("configs", version_base="1.3"):
        return compose("config", [*small, "strategy=naive", "stream=custom"])


@pytest.fixture(scope="module")
def written(cfg: DictConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after the third step of the first experience."""
    learner = Learner(cfg, toy_stream().info)
    folder: Path = tmp_path_factory.mktemp("midway")

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            learner.save_midway(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.learn_experience(toy_stream().experience(0), stop)
    return folder


def go_on(cfg: DictConfig, folder: Path) -> tuple[Learner, list[int]]:
    """A learner that goes on there, and the steps that it took."""
    steps: list[int] = []
    learner = Learner(cfg, toy_stream().info)
    learner.learn_experience(
        toy_stream().experience(0), lambda progress: steps.append(progress.step), folder
    )
    return learner, steps


def test_it_goes_on_with_the_next_step(cfg: DictConfig, written: Path) -> None:
    whole = Learner(cfg, toy_stream().info)
    whole.learn(toy_stream().experience(0))
    again, steps = go_on(cfg, written)
    assert steps[0] == 4
    for ours, theirs in zip(again.state.parameters(), whole.state.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def training(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda content: change(content["training"])


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (VALUES, lambda content: content.pop("attributes")),
        (VALUES, lambda content: content["attributes"].update({"strategy:loss": {"value": 3}})),
        (VALUES, training(lambda content: content.pop("groups"))),
        (VALUES, training(lambda content: content.update(epoch=-1))),
        (VALUES, training(lambda content: content.update(epoch=1))),
        (VALUES, training(lambda content: content.update(step="3"))),
        (VALUES, training(lambda content: content.update(step=4))),
        (VALUES, training(lambda content: content["groups"][0].update(lr=-1))),
        (VALUES, training(lambda content: content["groups"][0].update(betas=[9, 9]))),
        (VALUES, training(lambda content: content["groups"].append({}))),
        (VALUES, training(lambda content: content["schedule"].update(step=1))),
        (VALUES, training(lambda content: content["schedule"].update(base_lrs=[5.0]))),
        (TENSORS, lambda tensors: tensors.pop("random")),
        (TENSORS, lambda tensors: tensors["random"].zero_().add_(255)),
        (TENSORS, lambda tensors: tensors.update({"order.now": tensors["order.now"][:9]})),
        (TENSORS, lambda tensors: tensors["order.positions"].add_(10**6)),
        (TENSORS, lambda tensors: tensors["order.batch"].add_(1)),
        (TENSORS, lambda tensors: tensors["optimizer.0.exp_avg"].fill_(math.nan)),
        (TENSORS, lambda tensors: tensors.update(more=torch.ones(1))),
    ],
)
def test_what_cannot_be_a_checkpoint_is_refused(
    cfg: DictConfig, written: Path, tmp_path: Path, file: str, change: Callable[[Any], Any]
) -> None:
    for each in written.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    content = (
        json.loads((tmp_path / file).read_text()) if file == VALUES else load_file(tmp_path / file)
    )
    change(content)
    if file == VALUES:
        (tmp_path / file).write_text(json.dumps(content))
    else:
        save_file(content, tmp_path / file)
    with pytest.raises(MidwayError):
        go_on(cfg, tmp_path)
