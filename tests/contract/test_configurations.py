"""Every method has a configuration, with its command and its arguments."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

import cl.evaluation
import configs
import strategies
from cl.evaluation import Metric
from cl.instantiate import locate
from cl.strategy import Hooks

FOLDER = Path(configs.__file__).parent
SEVERAL = ("plugin", "metric")
METHODS = [
    (kind, file.stem)
    for kind in ("strategy", *SEVERAL)
    for file in sorted((FOLDER / kind).glob("*.yaml"))
    if file.stem != "custom"
]


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_yaml_has_the_command_and_the_arguments(kind: str, name: str) -> None:
    text = (FOLDER / kind / f"{name}.yaml").read_text()
    shown = f"{kind}=[{name}]" if kind in SEVERAL else f"strategy={name}"
    comments = [line for line in text.splitlines()[:2] if line.startswith("# python run.py ")]
    assert comments, "the exact command that runs it stands at the top"
    assert shown in comments[0]
    command = comments[0].removeprefix("# python run.py ").split()
    with hydra.initialize_config_module("configs", version_base="1.3"):
        cfg = hydra.compose("config", command)
    node = OmegaConf.to_container(cfg[kind][name] if kind in SEVERAL else cfg.strategy)
    assert isinstance(node, dict)
    target = locate(node.pop("_target_"), kind)
    parameters = inspect.signature(target).parameters
    assert list(node) == list(parameters), "the same keys as the constructor, in the same order"
    given = [argument.partition("=")[0] for argument in command]
    for key, parameter in parameters.items():
        if f"{kind}.{name}.{key}" in given and parameter.default is parameter.empty:
            continue  # it must be given
        default = parameter.default
        assert node[key] == (list(default) if isinstance(default, tuple) else default), key


def test_every_metric_has_a_configuration_and_says_what_it_is() -> None:
    nodes = [OmegaConf.load(file) for file in (FOLDER / "metric").glob("*.yaml")]
    for file in Path(cl.evaluation.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"cl.evaluation.{file.stem}")
        for name, value in vars(module).items():
            ours = inspect.isclass(value) and value.__module__ == module.__name__
            if ours and issubclass(value, Metric) and value is not Metric:
                assert f"{module.__name__}.{name}" in [node._target_ for node in nodes]
                assert value.__doc__


def test_every_method_has_a_configuration() -> None:
    configured = set()
    for kind in ("strategy", "plugin"):
        for file in (FOLDER / kind).glob("*.yaml"):
            text = file.read_text()
            configured |= {line.split()[-1] for line in text.splitlines() if "_target_:" in line}
    for file in Path(strategies.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"strategies.{file.stem}")
        for name, value in vars(module).items():
            if (
                inspect.isclass(value)
                and issubclass(value, Hooks)
                and value.__module__ == module.__name__
            ):
                assert f"{module.__name__}.{name}" in configured
                assert value.__doc__
                assert "et al." in value.__doc__ or " and " in value.__doc__ or "(" in value.__doc__
