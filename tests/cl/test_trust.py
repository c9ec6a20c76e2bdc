"""What a stored configuration names is built only if it is what it should be; nothing else runs."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import strategies.naive
from cl.checkpoint import seal
from cl.errors import ConfigurationError
from cl.experiment import KINDS, Experiment
from cl.learner import Learner
from cl.predict import main as predict
from cl.stream import Stream
from cl.trust import check_trust
from strategies.naive import Naive
from tests.conftest import Compose, toy_stream

WELCOME: dict[str, Any] = {
    "strategy": {"_target_": "strategies.ewc.EWC", "strength": 1.0},
    "plugin": {"ema": {"_target_": "strategies.ema.EMA"}},
    "stream": {"_target_": "streams.sequences.sequence", "datasets": ["mnist"]},
    "logger": {"files": {"_target_": "cl.loggers.files.FileLogger"}},
    "seed": 0,
}
SECTIONS = ("strategy", "stream", "plugin.ema", "logger.files")


class Mine(Naive):
    """A user's own strategy."""


partial = functools.partial(toy_stream, tasks=2)


def undeclared(tasks: int = 2):  # type: ignore[no-untyped-def]
    return toy_stream(tasks)


def check(section: str = "seed", node: Any = 0, trust: tuple[str, ...] = ()) -> None:
    cfg = OmegaConf.create(WELCOME)
    OmegaConf.update(cfg, section, node, merge=False, force_add=True)
    check_trust(cfg, KINDS, trust)


def nested(file: Path) -> dict[str, Any]:
    """A node of a trusted package that would build another one, which makes `file`."""
    return {"_target_": "cl.instantiate.build", "where": "x", "node": touching(file)}


def touching(file: Path) -> dict[str, Any]:
    return {"_target_": "os.system", "command": f"touch {file}"}


def test_what_is_ours_is_welcome() -> None:
    check()
    check("strategy._target_", "tests.cl.test_trust.Mine", trust=("tests",))
    check("stream", {"_target_": "tests.conftest.toy_stream", "tasks": 3}, trust=("tests",))


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system", r"trust=\[os\]"),
        ("builtins.eval", r"trust=\[builtins\]"),
        ("functools.partial", r"trust=\[functools\]"),
        ("strategies_of_hers.EWC", r"trust=\[strategies_of_hers\]"),
        ("cl.instantiate.build", "must be|may be named here"),
        ("cl.streams.configured", "must be|may be named here"),
        ("cl.compare.main", "must be|may be named here"),
        ("cl.strategy.Strategy", "must be|may be named here"),
        ("cl.loggers.base.Logger", "must be|may be named here"),
        ("cl.stream.Stream", "must be|may be named here"),
        ("streams.own.folder", "must be|may be named here"),
        ("streams.own.Stream", "must be|may be named here"),
        ("strategies.naive.Strategy", "must be|may be named here"),
        ("strategies.avalanche.torch", "must be|may be named here"),
        ("strategies.ewc.torch.nn.Module", "there is no module|may be named here"),
        ("cl.learner.Learner", "must be|may be named here"),
        ("cl.data.arrays.Array", "must be|may be named here"),
        ("Naive", "give package.module.Name|trust="),
        ("", "give package.module.Name|trust="),
        (".os.system", "give package.module.Name|trust="),
    ],
)
def test_nothing_else_is_accepted(section: str, target: str, message: str) -> None:
    if (section, target) == ("stream", "streams.own.folder"):
        return check(section, {"_target_": target, "root": "x"})
    with pytest.raises(ConfigurationError, match=message):
        check(section, {"_target_": target})
    return None


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("strategy", "tests.conftest.toy_stream"),
        ("plugin.ema", "tests.cl.test_trust.Mine"),
        ("stream", "tests.cl.test_trust.undeclared"),
        ("stream", "tests.cl.test_trust.partial"),
        ("stream", "tests.cl.test_trust.Mine"),
        ("logger.files", "tests.conftest.toy_stream"),
    ],
)
def test_trust_in_a_package_does_not_change_what_a_section_is_for(
    section: str, target: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"a stored {section} must be a subclass of"):
        check(section, {"_target_": target}, trust=("tests",))


@pytest.mark.parametrize("section", ["strategy", "stream"])
def test_trust_in_our_own_package_adds_nothing(section: str) -> None:
    for target in ("cl.streams.configured", "cl.instantiate.build"):
        with pytest.raises(ConfigurationError, match="of our own packages only"):
            check(section, {"_target_": target}, trust=("cl", "streams", "strategies"))


def test_a_module_is_imported_only_when_its_package_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hers_alone.py").write_text(
        "from pathlib import Path\nfrom strategies.naive import Naive\n"
        f"Path({str(tmp_path / 'imported')!r}).touch()\nclass Hers(Naive): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r"trust=\[hers_alone\]"):
        check("strategy._target_", "hers_alone.Hers")
    assert not (tmp_path / "imported").exists()
    assert "hers_alone" not in sys.modules
    check("strategy._target_", "hers_alone.Hers", trust=("hers_alone",))
    assert (tmp_path / "imported").exists()


def test_where_a_class_is_defined_counts_not_where_it_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strategies.naive, "Borrowed", Mine, raising=False)
    with pytest.raises(ConfigurationError, match=r"trust=\[tests\]"):
        check("strategy", {"_target_": "strategies.naive.Borrowed"})
    check("strategy", {"_target_": "strategies.naive.Borrowed"}, trust=("tests",))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("strategy.strength", {"_target_": "strategies.ewc.EWC"}),
        ("strategy.args", [{"deep": [{"_target_": "os.system"}]}]),
        ("strategy._partial_", True),
        ("strategy._args_", [1]),
        ("stream.datasets", [{"_target_": "os.system", "command": "true"}]),
        ("plugin.ema.more", {"_recursive_": False}),
        ("logger.files._convert_", "all"),
        ("backbone", {"_target_": "os.system"}),
        ("trainer", {"hooks": [{"_target_": "os.system"}]}),
        ("names", {"stream": {"_target_": "os.system"}}),
        ("_target_", "os.system"),
    ],
)
def test_no_node_is_hidden_elsewhere(where: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="may not have it at this place"):
        check(where, value)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("strategy", None),
        ("strategy", "strategies.ewc.EWC"),
        ("strategy", {"strength": 1}),
        ("strategy._target_", ["os", "system"]),
        ("stream", []),
        ("plugin", ["os.system"]),
        ("plugin", {"_target_": "os.system"}),
        ("logger.files", 3),
    ],
)
def test_sections_of_another_shape_are_refused(section: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{section.split('.')[0]}"):
        check(section, value)


@pytest.mark.parametrize("node", [nested, touching])
@pytest.mark.parametrize("section", SECTIONS)
def test_resuming_a_folder_of_a_stranger_runs_nothing(
    compose: Compose, tmp_path: Path, section: str, node: Any
) -> None:
    """The folder holds nothing but a config.yaml."""
    cfg = compose("strategy=naive", "+stream.tasks=2", "plugin=[ema]", "logger=[files]")
    OmegaConf.update(cfg, section, node(tmp_path / "made"), merge=False, force_add=True)
    folder = tmp_path / "run"
    folder.mkdir()
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    with pytest.raises(ConfigurationError, match=f"{section}|os.system"):
        Experiment.resume(folder, trust=["tests"])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("node", [nested, touching])
@pytest.mark.parametrize("section", ["strategy", "plugin"])
def test_opening_a_learner_of_a_stranger_runs_nothing(
    compose: Compose, tmp_path: Path, section: str, node: Any
) -> None:
    saved = tmp_path / "learner"
    Learner(compose("strategy=naive"), toy_stream().info).save(saved)
    content = json.loads((saved / "learner.json").read_text())
    bad = node(tmp_path / "made")
    content["recipe"][section] = {"bad": bad} if section == "plugin" else bad
    (saved / "learner.json").write_text(json.dumps(content))
    seal(saved)
    with pytest.raises(ConfigurationError, match=r"os.system|node._target_"):
        Learner.load(saved)
    with pytest.raises(SystemExit, match="error: "):
        predict([str(saved), str(tmp_path)])
    assert not (tmp_path / "made").exists()


def test_a_trusted_strategy_goes_on(compose: Compose, tmp_path: Path) -> None:
    custom = ["strategy=custom", "+strategy._target_=tests.cl.test_trust.Mine"]
    experiment = Experiment(compose(*custom), loggers=[])
    OmegaConf.save(experiment.cfg, experiment.folder / "config.yaml", resolve=True)
    with pytest.raises(ConfigurationError, match=r"trust=\[tests\]"):
        Experiment.resume(experiment.folder, loggers=[])
    again = Experiment.resume(experiment.folder, loggers=[], trust=["tests"])
    assert type(again.learner.strategy) is Mine
    again.learner.save(tmp_path / "learner")
    assert type(Learner.load(tmp_path / "learner", ["tests"]).strategy) is Mine


def test_all_that_we_ship_can_be_resumed() -> None:
    """Every configuration of ours names what a stored one may name."""
    configs = Path(sys.modules["configs"].__path__[0])
    for section in ("strategy", "stream", "plugin", "metric", "logger"):
        for file in sorted((configs / section).glob("*.yaml")):
            if file.stem == "custom":
                continue
            cfg = OmegaConf.load(file)
            several = section in ("plugin", "metric", "logger")
            target = cfg._target_ if several else cfg[section]._target_
            node = {"_target_": target}
            check(section, {"it": node} if several else node)


def test_no_other_function_of_ours_is_declared_as_a_stream() -> None:
    """`cl.streams.configured` returns a stream too, and composes whatever it is told to."""
    kind = KINDS["stream"]
    from cl.streams import configured

    assert kind.fits(configured), "only its package keeps it out"
    assert kind.package == "streams"
    assert not kind.fits(Stream)
