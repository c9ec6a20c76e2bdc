"""A run returns the number that a sweeper may search with."""

from __future__ import annotations

import math

import pytest

from cl.cli import _run
from cl.errors import ConfigurationError
from cl.evaluation.optimised import check_optimised, optimised
from cl.run_folder import runs_folder
from cl.stored import load_json
from tests.conftest import Compose


def test_the_command_returns_it(compose: Compose) -> None:
    cfg = compose("strategy=simplecil", "logger=[]", "metric=[ece]")
    (folder,) = runs_folder(cfg, cfg.names).glob("*/summary.json") if _run(cfg) else ()
    summary = load_json(folder)
    cfg.optimised_metric = "metrics.calibration_error"
    assert _run(cfg) == summary["metrics"]["calibration_error"]
    cfg.optimised_metric = "within_task.average_accuracy"
    assert _run(cfg) == summary["within_task"]["average_accuracy"]


def test_a_typo_is_answered_before_anything_is_learnt(compose: Compose) -> None:
    for key in ("average_acuracy", "names.stream", "within_task"):
        with pytest.raises(SystemExit, match=f"optimised_metric={key}: there is no such number"):
            _run(compose("strategy=simplecil", f"optimised_metric={key}"))
    with pytest.raises(ConfigurationError, match="Did you mean average_accuracy"):
        check_optimised("average_acuracy")


def test_what_is_undefined_is_no_number() -> None:
    summary = {"forgetting": None, "metrics": {"x": 0.5}, "seed": 1, "complete": True}
    assert math.isnan(optimised(summary, "forgetting"))
    assert optimised(summary, "metrics.x") == 0.5
    with pytest.raises(ConfigurationError, match=r"Did you mean metrics\.x"):
        optimised(summary, "metrics.xx")
