"""Use from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

import cl
from cl.api import compose, written
from cl.errors import ConfigurationError
from strategies.naive import Naive

SMALL: dict[str, Any] = {
    "backbone.pretrained": False,
    "backbone.image_size": 8,
    "trainer.epochs": 1,
    "trainer.device": "cpu",
    "stream.tasks": 2,
    "logger": [],
}


class Own(Naive):
    """A strategy of the user's."""


def test_a_run_in_one_call(tmp_path: Path) -> None:
    result = cl.run(
        stream="split_digits", strategy="simplecil", seed=3, output=tmp_path / "a b", **SMALL
    )
    assert result.matrix.shape == (2, 2)
    assert np.isnan(result.matrix[0, 1])
    assert result.metrics["seed"] == 3
    assert result.metrics["average_accuracy"] == pytest.approx(float(result.matrix[-1].mean()))
    assert result.metrics["names"] == {
        "stream": "split_digits",
        "strategy": "simplecil",
        "backbone": "nano",
    }
    assert result.folder.is_relative_to(tmp_path / "a b")
    assert result.learner.seen == 10
    assert result._repr_svg_().startswith("<svg")
    assert "average_accuracy=" in repr(result)


def test_a_class_of_ones_own_is_the_strategy() -> None:
    cfg = compose({"strategy._target_": f"{Own.__module__}.{Own.__qualname__}"})
    assert cfg.strategy._target_ == "tests.cl.test_api.Own"
    assert "hydra" not in cfg


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "olra"}, "olora"),
        ({"stream": "split_digit"}, "split_digits"),
        ({"trainer.epoch": 2}, "trainer.epochs"),
        ({"trainer.epochs": 0}, "at least 1"),
        ({"trainer": {"epochs": 2}}, "trainer.its_key"),
    ],
)
def test_mistakes_are_answered_as_on_the_command_line(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        cl.run(**settings)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.5,
        1e-4,
        "plain",
        "a b",
        "it's",
        "a=b,c",
        "ü/[x]",
        "",
        [1, "x y"],
        ["a", None],
    ],
)
def test_values_arrive_as_they_are(value: Any) -> None:
    cfg = compose({"++strategy.free": value})
    found = cfg.strategy.free
    assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value
    assert written(value, "x")


def test_import_is_light_and_offers_the_public_names() -> None:
    program = (
        "import sys, cl; print('torch' in sys.modules); print(cl.Learner.__name__); print(dir(cl))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    light, name, names = shown.stdout.splitlines()
    assert (light, name) == ("False", "Learner")
    assert all(f"'{public}'" in names for public in cl.PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'learner_of'"):
        cl.learner_of  # noqa: B018
