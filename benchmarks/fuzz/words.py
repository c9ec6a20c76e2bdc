"""What a user types: words of a command, and YAML files in her own `--config-dir`."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import hydra
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from benchmarks.fuzz.harness import Kind
from cl.cli import check, expand_targets

KEYS = (
    *("strategy", "stream", "backbone", "trainer", "plugin", "logger", "experiment", "seed"),
    *("trainer.lr", "trainer.epochs", "trainer.milestones", "trainer.device", "strategy.rank"),
    *("strategy.strength", "stream.tasks", "stream._target_", "strategy._target_", "cache.dir"),
    *("logger.files.report", "hydra.sweep.dir", "hydra/launcher", "names.strategy", "output"),
    *("resume", "trust", "trust.0", "backbone.name", "x", "a.b.c", "", "trainer.", ".lr", "säge"),
)
VALUES = (
    *("ewc", "olora", "naive,ewc", "olra", "split_digits", "nano", "1", "0,1,2", "-5", "1e308"),
    *("nan", "inf", "null", "true", "[1,2]", "[console,files]", "[]", "{}", "{a:1}", "{a:{b:[1]}}"),
    *(
        "interval(0,1)",
        "interval(1,5)",
        "glob(*)",
        "glob(e*,exclude=ewc)",
        "choice(1,2)",
        "choice()",
    ),
    *(
        "range(1,4)",
        "range(0,1,0.1)",
        "shuffle(1,2)",
        "sort(3,2)",
        "tag(x,choice(1,2))",
        "int(1.5)",
    ),
    *("float(x)", "str(1)", "bool(2)", "json_str(1)", "extend_list(1)", "range(1,1e9)"),
    *("${seed}", "${x.y}", "${oc.env:HOME}", "${oc.env:NOT_THERE}", "${", "$", "${oc.eval:1}"),
    *("", " ", "'", '"x"', "'a b'", "a b", "a=b", "\\", "é", "\u202e", "\x1b[31m", "x" * 5000),
    *(
        "../x",
        "/etc/passwd",
        "os.system",
        "cl.nothing",
        "strategies.ewc.EWC",
        "[" * 100,
        "???",
        "@x",
    ),
)
MARKS = ("", "", "", "", "+", "++", "~", "-", "--", "@", "+~")
FLAGS = ("-m", "--multirun", "--config-dir", "-cd=.", "--cfg", "--help", "--", "-x", "--hydra-help")


class Words(Kind):
    """The words of a command: answered, or taken as Hydra takes them."""

    name = "command line"
    share = 0.8

    def make(self, folder: Path) -> None:
        (folder / "words.json").write_text(json.dumps(["strategy=ewc"]))

    def mutate(self, folder: Path, chance: Random) -> str:
        words = [word(chance) for _ in range(chance.choice((1, 1, 2, 3)))]
        if chance.random() < 0.3:
            words.insert(chance.randrange(len(words) + 1), chance.choice(FLAGS[:2]))
        elif chance.random() < 0.1:
            words.insert(chance.randrange(len(words) + 1), chance.choice(FLAGS))
        (folder / "words.json").write_text(json.dumps(words))
        return json.dumps(words)[:200]

    def read(self, folder: Path) -> Any:
        words = json.loads((folder / "words.json").read_text())
        words = expand_targets(words)
        check(words)
        if any(w.startswith("-") and w not in FLAGS[:2] for w in words):
            return "Hydra's own"
        plain = [w for w in words if w not in FLAGS[:2]]
        if plain != words:
            parsed = OverridesParser.create().parse_overrides(plain)
            BasicSweeper.split_arguments(parsed, max_batch_size=None)
            return "a sweep"
        with hydra.initialize_config_module("configs", version_base="1.3"):
            cfg = hydra.compose("config", plain)
        return OmegaConf.to_container(cfg.trainer)

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return None


def word(chance: Random) -> str:
    """Something that looks like an override, or nearly."""
    key, value, mark = chance.choice(KEYS), chance.choice(VALUES), chance.choice(MARKS)
    typed = f"{mark}{key}" if mark == "~" and chance.random() < 0.5 else f"{mark}{key}={value}"
    if chance.random() < 0.1:
        place = chance.randrange(len(typed) + 1)
        typed = typed[:place] + chance.choice("=,()[]{}'\"\\$ ~+\t\n\0é") + typed[place:]
    return typed


class OwnConfig(Kind):
    """A YAML file of the user's: taken, or answered with its name."""

    name = "--config-dir"
    files = ("own/strategy/mine.yaml",)
    share = 0.6

    def make(self, folder: Path) -> None:
        (folder / "own" / "strategy").mkdir(parents=True)
        content = {"_target_": "strategies.ewc.EWC", "strength": 100.0, "more": {"a": [1, 2]}}
        (folder / "own" / "strategy" / "mine.yaml").write_text(yaml.safe_dump(content))

    def read(self, folder: Path) -> Any:
        check(["--config-dir", "own", "strategy=mine"])

    def objection(self, folder: Path, expected: Any, found: Any, said: str) -> str | None:
        return None


KINDS_HERE = (Words, OwnConfig)
