"""Compute metrics of a run that is over, from what it kept of its answers.

python -m cl.measure runs/… metric=[ece] metric.ece.bins=20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from cl.checkpoint import save_json
from cl.errors import ConfigurationError, PalimpsestError, require
from cl.evaluation.later import Answered
from cl.evaluation.measuring import build_metric, merged
from cl.names import shown
from cl.overrides import check, composing
from cl.stored import fields, load_json

KEPT_DIGITS = "Confidences were kept as float16, to three digits."


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cl.measure", description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a complete run")
    parser.add_argument("metrics", nargs="+", help="metric=[ece], metric.ece.bins=20 …")
    parser.add_argument("--save", action="store_true", help="put the numbers into summary.json too")
    given = parser.parse_args(argv)
    try:
        numbers, reasons = measure(given.run, given.metrics)
        for name, value in numbers.items():
            print(
                f"{name}: {f'undefined ({shown(reasons[name])})' if value is None else f'{value:.4g}'}"
            )
        print(KEPT_DIGITS)
        if given.save:
            save(given.run, numbers, reasons)
            print(f"Written into {given.run / 'summary.json'}")
    except (PalimpsestError, OSError) as error:
        sys.exit(f"error: {error}")


def measure(run: Path, overrides: Sequence[str]) -> tuple[dict[str, float | None], dict[str, str]]:
    """The numbers of the metrics that the overrides choose, and why one of them is None."""
    nodes = chosen(overrides)
    answered = Answered.read(run)
    done = [answered.measure(name, build_metric(name, node)) for name, node in nodes.items()]
    return merged(done, "numbers"), merged(done, "reasons")


def chosen(overrides: Sequence[str]) -> Mapping[str, DictConfig]:
    """The nodes of the metrics, by name; ConfigurationError if there is none, or something else is said."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        require(
            key == "metric" or key.startswith("metric."),
            f"{override}: only metrics can be chosen here, such as metric=[ece].",
        )
    check(overrides)
    with hydra.initialize_config_module("configs", version_base="1.3"), composing():
        nodes: Any = hydra.compose("config", list(overrides)).metric
    if not nodes:
        raise ConfigurationError("No metric is chosen: metric=[ece]")
    return {str(name): node for name, node in nodes.items()}


def save(run: Path, numbers: Mapping[str, float | None], reasons: Mapping[str, str]) -> None:
    """Put the numbers into the run's summary, where `cl.compare` finds them."""
    file = run / "summary.json"
    summary = fields(load_json(file), file, {})
    kept = {
        name: reason for name, reason in summary.get("undefined", {}).items() if name not in numbers
    }
    summary["metrics"] = {**summary.get("metrics", {}), **numbers}
    summary["undefined"] = {**kept, **reasons}
    save_json(summary, file)


if __name__ == "__main__":
    main()
