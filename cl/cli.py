"""The command line: Hydra's, with an answer to typos that says what to type instead.

Torch is not imported before the configuration is composed and checked.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl.config import BackboneConfig, CacheConfig, TrainerConfig, as_object
from cl.errors import ConfigurationError, PalimpsestError, suggest

CONFIGS = "pkg://configs"


def main() -> None:
    """Compose the configuration from `sys.argv`, check it, and run the experiment (or the sweep)."""
    sys.path.append(str(Path.cwd()))  # a user's own module next to where she types the command
    try:
        sys.argv[1:] = expand_targets(sys.argv[1:])
        check(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=CONFIGS, config_name="config")(_run)()
    except PalimpsestError as error:
        sys.exit(f"error: {error}")


def _run(cfg: DictConfig) -> None:
    from cl import sweep  # torch comes in here
    from cl.experiment import start
    from cl.stopping import StoppedError

    try:
        if sweep.is_sweep():
            sweep.run(cfg)
        else:
            start(cfg).run()
    except StoppedError as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except PalimpsestError as error:
        sys.exit(f"error: {error}")  # here, or Hydra would print a traceback


def expand_targets(argv: list[str]) -> list[str]:
    """`strategy._target_=X` alone stands for "no preset, only X and the arguments that I give"."""
    for group in ("strategy", "stream"):
        names = [argument.split("=")[0].lstrip("+") for argument in argv]
        if f"{group}._target_" in names and group not in names:
            argv = [
                f"++{argument.lstrip('+')}"
                if argument.lstrip("+").startswith(f"{group}.")
                else argument
                for argument in argv
            ]
            argv.append(f"{group}=custom")
    return argv


def check(argv: list[str]) -> None:
    """Raise ConfigurationError for an unknown name or key, or a value of the wrong type or range."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    arguments, rest = parser.parse_known_args(argv)
    if any(argument.startswith("-") and argument not in ("-m", "--multirun") for argument in rest):
        return  # Hydra's own flags, such as --help or --cfg job: they run nothing
    overrides = _parse([argument for argument in rest if argument not in ("-m", "--multirun")])
    with hydra.initialize_config_module("configs", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        extra = _search_path(arguments.config_dir)
        compose = partial(_compose, overrides=overrides, extra=extra)
        own = Path(arguments.config_dir) if arguments.config_dir else None
        for override in overrides:
            _check_names(loader, override, own)
        # A sweep is checked by its first choice; each of its runs is checked again when it starts.
        chosen = [_first_choice(o) for o in overrides if _is_group(loader, o)]
        base = compose(chosen)
        for override in overrides:
            _check_key(base, override, loader)
        validate(compose([_first_choice(override) for override in overrides]))


def validate(cfg: DictConfig) -> None:
    """Raise ConfigurationError when a value of the typed sections is out of range."""
    as_object(cfg.trainer, TrainerConfig)
    as_object(cfg.backbone, BackboneConfig)
    as_object(cfg.cache, CacheConfig)


def _search_path(folder: str | None) -> list[str]:
    if folder is None:
        return []
    if not Path(folder).is_dir():
        raise ConfigurationError(f"--config-dir {folder}: there is no such folder.")
    return [f"hydra.searchpath=[file://{Path(folder).absolute()}]"]


def _parse(overrides: list[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigurationError(
            f"{_first_line(error)}\nWrite key=value, for example strategy=olora trainer.epochs=5."
        ) from None


def _compose(lines: list[str], overrides: list[Override], extra: list[str]) -> DictConfig:
    try:
        return hydra.compose("config", [*extra, *lines])
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        key = getattr(cause, "full_key", None)
        given = next((o.input_line for o in overrides if o.key_or_group == key), None)
        raise ConfigurationError(
            f"{given or key or 'configuration'}: {_first_line(cause)}"
        ) from None


def _check_names(loader: ConfigLoader, override: Override, own: Path | None) -> None:
    """own: the folder of --config-dir, which the loader does not know."""
    if not _is_group(loader, override) or override.is_delete():
        return
    group = override.key_or_group
    options = [name for name in loader.get_group_options(group) if name != "custom"]
    options += [file.stem for file in (own / group).glob("*.yaml")] if own else []
    for choice in _choices(override):
        if choice not in options and choice != "custom":
            raise ConfigurationError(
                f"{group}={choice}: there is no {group} of this name. {suggest(str(choice), options)}"
            )


def _check_key(base: DictConfig, override: Override, loader: ConfigLoader) -> None:
    if override.is_add() or override.is_force_add() or _is_group(loader, override):
        return
    key = override.key_or_group
    if key.startswith("hydra."):
        return
    node: Any = OmegaConf.to_container(base, resolve=False)
    for depth, part in enumerate(parts := key.split(".")):
        if not isinstance(node, dict) or part not in node:
            where = ".".join(parts[:depth])
            names = list(node) if isinstance(node, dict) else []
            names = [f"{where}.{name}" if where else str(name) for name in names]
            names = [name for name in names if name != "names"]
            label = ".".join(parts[: depth + 1])
            if depth == 0:
                names += [g for g in loader.list_groups("") if g != "hydra"]
            raise ConfigurationError(f"{label}: there is no such key. {suggest(label, names)}")
        node = node[part]


def _is_group(loader: ConfigLoader, override: Override) -> bool:
    return bool(loader.get_group_options(override.key_or_group))


def _choices(override: Override) -> list[Any]:
    value = override.value()
    if isinstance(value, Sweep):
        return [str(choice) for choice in override.sweep_string_iterator()]
    return list(value) if isinstance(value, list) else [value]


def _first_choice(override: Override) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    first = next(iter(override.sweep_string_iterator()))
    prefix = "++" if override.is_force_add() else "+" if override.is_add() else ""
    return f"{prefix}{override.key_or_group}={first}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
