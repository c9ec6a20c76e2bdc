"""Use from Python: an experiment in one call, and what came of it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from cl.cli import expand_targets
from cl.errors import ConfigurationError
from cl.experiment import Experiment
from cl.learner import Learner
from cl.metrics import Matrix
from cl.overrides import check, composing
from cl.stopping import quoted


@dataclass(frozen=True)
class Result:
    """A finished run. In a notebook it shows its accuracy matrix as a picture.

    matrix: R[i, j], the accuracy on task j after experience i; NaN where it was not measured. metrics: what
    summary.json holds. learner: it can predict, learn on and be saved. folder: of the run.
    """

    matrix: Matrix
    metrics: dict[str, Any]
    learner: Learner
    folder: Path

    def __repr__(self) -> str:
        return (
            f"Result(average_accuracy={self.metrics['average_accuracy']:.4f}, folder={self.folder})"
        )

    def _repr_svg_(self) -> str:
        from cl.report import plots

        return plots.to_svg(plots.heat_map(self.matrix))


def run(stream: str = "split_digits", strategy: str | type = "olora", **settings: Any) -> Result:
    """Do what `python run.py stream=… strategy=…` does, and return what came of it.

    stream: the name of a stream. strategy: the name of a strategy, or a class of your own that can be
    imported. settings: other groups and keys as on the command line; those with a dot are given as
    `**{"trainer.epochs": 2}`. Raises ConfigurationError as the command does.

        import cl
        result = cl.run(stream="split_digits", strategy="naive", seed=1, **{"trainer.epochs": 1})
        result.matrix[-1]
    """
    if inspect.isclass(strategy):
        settings = {
            "strategy._target_": f"{strategy.__module__}.{strategy.__qualname__}",
            **settings,
        }
    else:
        settings = {"strategy": strategy, **settings}
    experiment = Experiment(compose({"stream": stream, **settings}))
    summary = experiment.run()
    return Result(experiment.matrix.values(), summary, experiment.learner, experiment.folder)


def compose(settings: dict[str, Any]) -> DictConfig:
    """The configuration of these groups and keys, checked as on the command line."""
    words = expand_targets([f"{key}={written(value, key)}" for key, value in settings.items()])
    check(words)
    with hydra.initialize_config_module("configs", version_base="1.3"), composing():
        cfg = hydra.compose("config", words, return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    names = OmegaConf.to_container(cfg.names, resolve=False)
    assert isinstance(names, dict)
    with open_dict(cfg):
        for key, name in names.items():
            if "hydra:runtime.choices" in str(name):
                cfg.names[key] = choices[key]
        del cfg["hydra"]
    return cfg


def written(value: Any, key: str) -> str:
    """A value as it is typed on the command line; ConfigurationError for what cannot be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return quoted(str(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(written(each, key) for each in value)}]"
    raise ConfigurationError(
        f"{key}={value!r}: give a name, a number, or a list of them; keys inside a group are given as "
        f'**{{"{key}.its_key": value}}.'
    )
