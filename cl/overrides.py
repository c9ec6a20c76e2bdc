"""What is typed after the command, checked before anything starts. It imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, QuotedString, Sweep
from omegaconf import DictConfig, OmegaConf

from cl.config import (
    BackboneConfig,
    CacheConfig,
    EvaluationConfig,
    TrainerConfig,
    as_object,
    describe,
)
from cl.errors import ConfigurationError, PalimpsestError, require
from cl.typos import LISTS, aliases, meant_choice, meant_key, paths

RUNNING = ("-m", "--multirun", "-r", "--run")
SHOWING = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--resolve", "--package", "-p")
MORE = ("--info", "-i", "--shell-completion", "-sc", "--experimental-rerun")
PLACES = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
MOST = 10_000
"""A sweep with more values of one key than this is a mistake."""


def check(argv: Sequence[str]) -> None:
    """Raise ConfigurationError for an unknown name or key, or a value of the wrong type or range."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    arguments, rest = parser.parse_known_args(argv)
    flags = [argument for argument in rest if argument.startswith("-")]
    for flag in flags:
        _check_flag(flag, rest)
    if any(flag not in RUNNING for flag in flags):
        return  # Hydra's own flags, such as --help or --cfg job: they run nothing
    sweep = any(flag in ("-m", "--multirun") for flag in flags)
    own = Path(arguments.config_dir) if arguments.config_dir else None
    require(own is None or own.is_dir(), f"--config-dir {own}: there is no such folder.")
    with hydra.initialize_config_module("configs", version_base="1.3"), composing(own=own):
        groups = Groups(GlobalHydra.instance().config_loader(), own)
        overrides = [_parse(argument) for argument in rest if not argument.startswith("-")]
        _check(overrides, groups, sweep)


@contextmanager
def composing(overrides: Sequence[Override] = (), own: Path | None = None) -> Iterator[None]:
    """Turn whatever Hydra, and the parsers that it calls, raise into a ConfigurationError.

    overrides: of which one may be to blame. own: the folder of --config-dir.
    """
    try:
        yield
    except PalimpsestError:
        raise
    except UnicodeError as error:
        found = _not_text(own) if own else None
        raise ConfigurationError(f"{found or 'configuration'}: it is not UTF-8. {error}") from None
    except Exception as error:
        cause = error.__cause__ or error
        key = getattr(cause, "full_key", None)
        given = next((o.input_line for o in overrides if key and o.key_or_group == key), None)
        where = given or key or (overrides[0].input_line if len(overrides) == 1 else None)
        raise ConfigurationError(f"{where or 'configuration'}: {describe(cause)}") from None


@dataclass(frozen=True)
class Groups:
    """The groups of configurations. own: the folder of --config-dir, which the loader does not know."""

    loader: ConfigLoader
    own: Path | None
    found: dict[str, list[str]] = field(default_factory=dict)

    def __contains__(self, key: str) -> bool:
        return bool(self._listed(key))

    def _listed(self, group: str) -> list[str]:
        """What the loader has; it reads all folders anew whenever it is asked."""
        if group not in self.found:
            self.found[group] = self.loader.get_group_options(group)
        return self.found[group]

    def options(self, group: str) -> list[str]:
        """The names that may be chosen."""
        found = [name for name in self._listed(group) if name != "custom"]
        return found + (
            [file.stem for file in (self.own / group).glob("*.yaml")] if self.own else []
        )

    def all_options(self) -> dict[str, list[str]]:
        """The names of every group but Hydra's own."""
        return {g: self.options(g) for g in self.loader.list_groups("") if g != "hydra"}

    def compose(self, lines: Sequence[str], overrides: Sequence[Override]) -> DictConfig:
        """The configuration that these lines give."""
        extra = []
        if self.own:
            place = str(self.own.absolute()).replace("'", "\\'")
            extra = [f"hydra.searchpath=['file://{place}']"]
        with composing(overrides, self.own):
            return hydra.compose("config", [*extra, *lines])


def validate(cfg: DictConfig) -> None:
    """Raise ConfigurationError when a section is missing, or a value of a typed one is out of range."""
    for key in ("stream", "strategy"):
        there = key in cfg and not OmegaConf.is_missing(cfg, key)
        require(there, f"{key}: a run needs one: {key}=…")
        _check_node(cfg[key], key)
    for group in LISTS:
        section = cfg.get(group) or {}
        require(isinstance(section, Mapping), f"{group}={section}: give names: {group}=[…].")
        for name in section:
            _check_node(section[name], f"{group}.{name}")
    as_object(cfg.trainer, TrainerConfig)
    as_object(cfg.backbone, BackboneConfig)
    as_object(cfg.cache, CacheConfig)
    as_object(cfg.evaluation, EvaluationConfig)


def _check_node(node: Any, where: str) -> None:
    named = OmegaConf.is_dict(node) and "_target_" in node
    require(named, f"{where}={node}: it must name a class: {where}._target_=package.module.Name")


def _check(overrides: Sequence[Override], groups: Groups, sweep: bool) -> None:
    searches = any(o.key_or_group == "hydra/sweeper" and o.value() != "basic" for o in overrides)
    for override in overrides:
        with composing([override]):
            if not (searches and _is_interval(override)):
                _check_values(override, groups)
            _check_names(override, groups)
            _check_number(override, groups, sweep)
    lines = [_first_choice(override, groups, sweep) for override in overrides]
    # A sweep is checked by its first choice; each of its runs is checked again when it starts.
    chosen = [line for line, o in zip(lines, overrides, strict=True) if o.key_or_group in groups]
    base = OmegaConf.to_container(groups.compose(chosen, overrides), resolve=False)
    for override in overrides:
        _check_key(base, override, groups)
    validate(groups.compose(lines, overrides))


def _check_flag(flag: str, rest: Sequence[str]) -> None:
    """Raise ConfigurationError for --strategy olora, which other programs would take."""
    name, _, value = flag.partition("=")
    known = (*RUNNING, *SHOWING, *MORE, *PLACES)
    if name in known or (len(name) > 3 and any(each.startswith(name) for each in known)):
        return
    after = list(rest)[list(rest).index(flag) + 1 :]
    if not value and after and "=" not in after[0] and not after[0].startswith("-"):
        value = after[0]
    key = name.lstrip("-").replace("-", "_")
    raise ConfigurationError(
        f"{name}: there is no such option. Settings are written without dashes: "
        f"{aliases()['keys'].get(key, key)}={value or '…'}"
    )


def _parse(line: str) -> Override:
    key, _, value = line.partition("=")
    try:
        (parsed,) = OverridesParser.create().parse_overrides([line])
    except Exception as error:
        example = "Write key=value, for example strategy=olora trainer.epochs=5."
        if key and value:
            quoted = value.replace("'", "\\'")
            example += f""" Special characters go into two pairs of quotes: "{key}='{quoted}'\""""
        raise ConfigurationError(f"{line}: {describe(error)}\n{example}") from None
    require(bool(parsed.key_or_group), f"{line}: what is before the = is missing.")
    return parsed


def _check_values(override: Override, groups: Groups) -> None:
    """Raise ConfigurationError for values that no sweep can go through one by one."""
    key, line = override.key_or_group, override.input_line
    if not override.is_sweep_override():
        return
    require(
        override.is_discrete_sweep(),
        f"{line}: an interval is for sweepers that search. Give values: {key}=choice(…), range(…) or a,b.",
    )
    require(
        not isinstance(override._value, Glob) or key in groups,
        f"{line}: glob chooses among the names of a group, and {key} is none.",
    )
    count = len(_choices(override, groups))
    require(count > 0, f"{line}: there is no such value.")
    require(count <= MOST, f"{line}: these are more than {MOST:,} runs.")


def _is_interval(override: Override) -> bool:
    return override.is_sweep_override() and not override.is_discrete_sweep()


def _check_number(override: Override, groups: Groups, sweep: bool) -> None:
    """Raise ConfigurationError when several are given where a run takes one."""
    key, line = override.key_or_group, override.input_line
    single = key in groups and key not in LISTS
    if override.is_sweep_override():
        hint = "" if single else f", or for one list {key}=[{str(line).partition('=')[2]}]"
        require(sweep, f"{line}: several values are several runs: python run.py -m {line}{hint}")
    elif single and isinstance(override.value(), list):
        names = ",".join(map(str, _choices(override, groups)))
        raise ConfigurationError(
            f"{line}: a run takes one {key}. For several runs: python run.py -m {key}={names}"
        )


def _check_names(override: Override, groups: Groups) -> None:
    group, delete = override.key_or_group, override.is_delete()
    if group in LISTS and (override.value() is None or delete):
        raise ConfigurationError(f"{override.input_line}: for none of them write {group}=[].")
    if group not in groups or delete:
        return
    for value in _choices(override, groups):
        for choice in value if isinstance(value, list) else [value]:
            name = choice.text if isinstance(choice, QuotedString) else choice
            require(
                name is not None, f"{override.input_line}: a run takes one {group}, by its name."
            )
            if name not in (*groups.options(group), "custom"):
                options = {group: groups.options(group)} | groups.all_options()
                raise ConfigurationError(
                    f"{group}={name}: there is no {group} of this name. "
                    f"{meant_choice(group, str(name), options)}"
                )


def _check_key(base: Any, override: Override, groups: Groups) -> None:
    key = override.key_or_group
    added = override.is_add() or override.is_force_add()
    if added or key in groups or override.is_hydra_override():
        return
    node: Any = base
    for depth, part in enumerate(parts := key.split(".")):
        if not isinstance(node, dict) or part not in node:
            where = ".".join(parts[:depth])
            names = list(node) if isinstance(node, dict) else []
            names = [f"{where}.{name}" if where else str(name) for name in names]
            names = [name for name in names if name != "names"]
            label = ".".join(parts[: depth + 1])
            options = list(groups.all_options())
            known = [path for path in paths(base) if not path.startswith("names")] + options
            meant = meant_key(key, [*names, *(options if depth == 0 else [])], known)
            if depth == 1 and where in LISTS and part in groups.options(where):
                meant = f"Choose it first: {where}=[{part}]"
            raise ConfigurationError(f"{label}: there is no such key. {meant}")
        node = node[part]


def _choices(override: Override, groups: Groups) -> list[Any]:
    """The values of an override, one too many at the most."""
    value = override._value
    if isinstance(value, Glob):
        return value.filter(groups.options(override.key_or_group))
    if isinstance(value, Sweep):
        return list(islice(override.sweep_iterator(), MOST + 1))
    plain = override.value()
    return list(plain) if isinstance(plain, list) else [plain]


def _first_choice(override: Override, groups: Groups, sweep: bool) -> str:
    """The line as the first run gets it: Hydra's sweeper writes all lines anew."""
    if isinstance(override._value, Glob):
        return f"{override.get_key_element()}={_choices(override, groups)[0]}"
    if _is_interval(override):
        interval: Any = override.value()
        return f"{override.get_key_element()}={interval.start:g}"
    if override.is_sweep_override():
        return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
    if sweep and not override.is_hydra_override():
        return f"{override.get_key_element()}={override.get_value_element_as_str()}"
    return str(override.input_line)


def _not_text(folder: Path) -> Path | None:
    """The first YAML file in or below the folder that is not UTF-8."""
    for file in sorted(folder.rglob("*.yaml")):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeError:
            return file
        except OSError:
            continue
    return None
