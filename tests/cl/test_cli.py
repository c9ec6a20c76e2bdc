"""What a person gets who types a command: the answer to a mistake, in time, without a traceback."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import cl.cli
import configs
from cl.cli import expand_targets, main
from cl.errors import ConfigurationError
from cl.experiment import Experiment
from cl.overrides import check
from cl.typos import aliases
from tests.conftest import Compose

ROOT = Path(configs.__file__).parent.parent


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("strategy=olra", "strategy=olra: .*Did you mean olora"),
        ("stream=split_cifr", "Did you mean split_cifar"),
        ("backbone=vit_tny", "Did you mean vit_tiny"),
        ("plugin=[emma]", "Did you mean ema"),
        ("stream.taks=3", "stream.taks: there is no such key. Did you mean stream.tasks"),
        ("trainer.epoch=4", "Did you mean trainer.epochs"),
        ("strategy.rnk=4", "Did you mean strategy.rank"),
        ("sede=3", "Did you mean seed"),
        ("nonsense=3", "nonsense: there is no such key. Valid: .*strategy"),
        ("seed=abc", "seed=abc: .*Integer"),
        ("trainer.lr=fast", "trainer.lr=fast: .*Float"),
        ("trainer.batch_size=-1", "trainer.batch_size=-1: it must be at least 1"),
        ("trainer.epochs=0", "trainer.epochs=0"),
        ("trainer.lr=-1", "must not be negative"),
        ("trainer.optimizer=adamm", "Did you mean adam"),
        ("trainer.schedule=cosin", "Did you mean cosine"),
        ("trainer.precision=8", "Valid: 16, 32, bf16"),
        ("backbone.image_size=0", "at least 1"),
        ("backbone=timm", "backbone.name must be given: backbone.name=…"),
        ("strategy=[olora", "Write key=value"),
        ("strategy", "Write key=value"),
        ("strategy=olora,ewcc", "Did you mean ewc"),
        ("strategy=[olora,ewc]", "python run.py -m strategy=olora,ewc"),
        ("seed=0,1", "python run.py -m seed=0,1"),
        ("trainer.milestones=1,2", r"trainer.milestones=\[1,2\]"),
        ("lr=0.1", r"Did you mean trainer\.lr\?"),
        ("epochs=5", r"Did you mean trainer\.epochs\?"),
        ("model=vit_tiny", "Did you mean backbone"),
        ("dataset=cifar100", "Did you mean stream"),
        ("gpus=2", r"Did you mean trainer\.devices"),
        ("rank=4", r"Did you mean strategy\.rank"),
        ("strategy.lr=1", r"Did you mean trainer\.lr"),
        ("trainer.learning_rate=1", r"Did you mean trainer\.lr"),
        ("epocs=1", r"Did you mean trainer\.epochs"),
        ("stream=cifar100", r"Did you mean stream=split_cifar stream\.dataset=cifar100"),
        ("stream=mnist", "Did you mean split_mnist"),
        ("strategy=icarl", r"Did you mean strategy=avalanche strategy\.name=ICaRL"),
        ("strategy=finetune", "Did you mean strategy=naive"),
        ("strategy=ema", r"It is a plugin: plugin=\[ema\]"),
        ("plugin.ema.decay=1", r"Choose it first: plugin=\[ema\]"),
        ("metric=[eec]", r"Did you mean ece"),
        ("plugin=[ece]", r"It is a metric: metric=\[ece\]"),
        ("metric.ece.bins=3", r"Choose it first: metric=\[ece\]"),
        ("metric=null", r"write metric=\[\]"),
        ("+metric.mine=3", r"metric\.mine\._target_="),
        ("evaluation.tasks=sen", "Did you mean seen"),
        ("evaluation.when=[befor]", "Did you mean before"),
        ("evaluation.when=before", "evaluation.when"),
        ("--strategy olora", "without dashes: strategy=olora"),
        ("--lr=0.1", r"without dashes: trainer\.lr=0\.1"),
        ("-seed=1", "without dashes: seed=1"),
        ("~strategy", "a run needs one: strategy=…"),
        ("~stream", "a run needs one: stream=…"),
        ("~backbone", "backbone.name must be given"),
        ("~plugin", r"write plugin=\[\]"),
        ("logger=null", r"write logger=\[\]"),
        ("strategy=null", "a run takes one strategy"),
        ("~trainer.lr", "~trainer.lr: .*does not support deletion"),
        ("~seed=3", "not 3"),
        ("~nothing", "there is no such key"),
        ("+seed=1", "already at 'seed'"),
        ("+strategy=ewc", "Multiple values for strategy"),
        ("++strategy=5", "no strategy of this name"),
        ("strategy={a:1}", "no strategy of this name"),
        ("+plugin.mine=3", r"plugin\.mine\._target_="),
        ("logger.console=null", r"logger\.console\._target_="),
        ("backbone@foo=nano", "Could not override 'backbone@foo'"),
        ("+backbone@foo=nano", "'foo' not in 'Config'"),
        ("experiment=naive_cifar100_inc10", r"use \+experiment="),
        ("trainer.lr=${trainer.lr}", "Recursive interpolation"),
        ("trainer.lr=${oc.env:NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE' not found"),
        ("trainer.lr=${unknown:1}", "Unsupported interpolation"),
        ("trainer.milestones=[a]", "Integer"),
        ("output=a=b", "\"output='a=b'\""),
        ("output=${", "Special characters"),
        ("seed=int(abc)", "invalid literal"),
        ("=3", "what is before the = is missing"),
        ("/etc/passwd=3", "/etc/passwd=3: "),
        ("hydra/launcher=joblibb", "Did you mean joblib"),
        ("hydra.sweep.dirr=x", "'dirr' not in"),
        ("-m seed=interval(0,1)", "an interval is for sweepers that search"),
        ("-m seed=tag(a,interval(0,1))", "an interval is for sweepers that search"),
        ("-m strategy=glob(zzz*)", "there is no such value"),
        ("-m seed=glob(*)", "glob chooses among the names of a group"),
        ("-m seed=range(0)", "there is no such value"),
        ("-m seed=range(0,10,0)", "must not be zero"),
        ("-m trainer.lr=range(0.0,1,0)", "Invalid range"),
        ("-m seed=range(1,nan)", "seed=range"),
        ("-m seed=range(0,1000000000000)", "more than 10,000 runs"),
        ("-m seed=choice()", "empty choice"),
        ("-m strategy=choice(ewc,olra)", "Did you mean olora"),
        ("-m ~logger seed=0,1", r"write logger=\[\]"),
        ("-m trainer.epochs=choice({a:1},{b:2})", "trainer.epochs"),
    ],
)
def test_mistakes_are_answered_with_what_to_type(argument: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        check(argument.split(" "))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["strategy=ewc", "strategy.strength=3", "stream=split_cifar", "stream.tasks=5"],
        ["-m", "strategy=olora,ewc", "seed=0,1"],
        ["-m", "seed=range(3)", "trainer.lr=1e-3"],
        ["backbone=timm", "backbone.name=resnet18", "backbone.image_size=null"],
        ["plugin=[ema]", "plugin.ema.decay=0.5"],
        ["strategy.targets=[attn.proj]"],
        ["-m", "strategy=glob(e*)", "seed=shuffle(1,2,3)"],
        ["-m", "seed=sort(3,1,reverse=true)", "trainer.lr=choice(0.1,0.2)"],
        ["-m", "seed=tag(a,choice(1,2))", "plugin=[ema],[]", "~strategy.rank"],
        ["~strategy.rank", "~trainer", "++seed=1", "+strategy.new=1"],
        ["logger=console", "output='a b=(c)'", "trainer.lr=float(1)"],
        ["output=${oc.env:HOME}/runs", "names.stream=${seed}"],
        ["+experiment=naive_cifar100_inc10", "--run"],
        ["metric=[ece,top5]", "metric.ece.bins=3", "evaluation.when=[after,during]"],
        ["--help"],
        ["--cfg", "job"],
        ["--multi", "seed=0,1"],
    ],
)
def test_what_is_right_passes(arguments: list[str]) -> None:
    check(arguments)


OWN = "# @package _global_\nstrategy:\n  _target_: strategies.naive.Naive\n"


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (OWN.encode() + b"# \xe9", r"mine\.yaml: it is not UTF-8"),
        (OWN.encode() + b"  a: b: c", r"mine\.yaml.*line 4"),
        (OWN.encode() + b"strategy: {}", "duplicate key"),
        (b"defaults:\n  - nothing\n", "Could not load 'strategy/nothing'"),
        (b"- a\n- b\n", "it must name a class"),
        (b"# @package _global_\nstrategy: " + b"[" * 3000 + b"]" * 3000, "nested too deeply"),
        (OWN.encode() + b"trainer:\n  lr: ${trainer.lr}\n", "Recursive interpolation"),
    ],
)
def test_a_broken_file_of_ones_own_is_answered(tmp_path: Path, content: bytes, answer: str) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=answer):
        check(["--config-dir", str(tmp_path), "strategy=mine"])


def test_a_folder_of_ones_own_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "it's (mine), = 1"
    (folder / "strategy").mkdir(parents=True)
    (folder / "strategy" / "mine.yaml").write_text(OWN)
    check(["--config-dir", str(folder), "strategy=mine"])
    check(["--config-dir", str(folder), "-m", "strategy=glob(m*)"])


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["seed=${seed}"], "error: seed: Recursive interpolation"),
        (["strategy.rank=${nothing}"], r"error: strategy\.rank: .*'nothing' not found"),
        (["--cfg", "job", "strategy=olra"], "error: .*strategy/olra"),
        (["--cfg", "job", "--resolve", "seed=${seed}"], "error: .*Recursive"),
        (["strategy=olra"], "error: strategy=olra"),
        (["-m", "strategy=ewc", "+stream=olra,x"], "error: stream=olra"),
    ],
)
def test_the_program_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], answer: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # restored afterwards
    with pytest.raises(SystemExit, match=answer):
        main()


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--version"])
    main()
    assert capsys.readouterr().out == f"palimpsest {cl.__version__}\n"


def test_ctrl_c_before_the_run_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The import of torch is the longest wait of all."""

    def interrupted(cfg: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.setattr(cl.cli, "_run_one", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert capsys.readouterr().err.strip() == "Stopped."


@pytest.mark.parametrize("strategy", ["simplecil", "avalanche"])
def test_a_second_ctrl_c_says_how_to_go_on(
    compose: Compose,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
) -> None:
    cfg = compose(f"strategy={strategy}", "logger=[]")
    experiment = Experiment(cfg)
    monkeypatch.setattr(cl.experiment, "start", lambda cfg: experiment)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "_experience", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cl.cli._run_one(cfg)
    assert stopped.value.code == 130
    kept = strategy == "simplecil"
    said = f"resume={experiment.folder}" if kept else "must begin anew"
    assert said in capsys.readouterr().err


def test_a_full_disk_before_the_run_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(cfg: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "data/cifar100")

    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.setattr(cl.experiment, "start", full)
    with pytest.raises(SystemExit, match="error: The disk with data/cifar100 is full"):
        main()


def test_an_unknown_mistake_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(cfg: object) -> None:
        raise ValueError("a mistake in a method")

    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.setattr(cl.experiment, "start", broken)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "in broken" in said
    assert "hydra/" not in said, "the frames of our code and hers, not Hydra's"


def test_every_alias_leads_somewhere(compose: Compose) -> None:
    everything = dict(aliases())
    keys = everything.pop("keys")
    cfg = compose("stream=split_digits")
    for key in keys.values():
        assert OmegaConf.select(cfg, key, throw_on_missing=False) is not None
    for group, names in everything.items():
        for command in names.values():
            check(f"{group}={command}".split(" "))


def test_a_typo_is_answered_in_three_seconds_on_one_screen(tmp_path: Path) -> None:
    start = time.perf_counter()
    answer = run("strategy=olra", cwd=tmp_path)
    assert time.perf_counter() - start < 3
    assert answer.returncode != 0
    assert "olora" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.splitlines()) < 20


def test_help_comes_in_three_seconds_and_names_everything(tmp_path: Path) -> None:
    start = time.perf_counter()
    answer = run("--help", cwd=tmp_path)
    assert time.perf_counter() - start < 3
    assert answer.returncode == 0
    for word in ("olora", "split_cifar", "vit_tiny", "batch_size"):
        assert word in answer.stdout


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("stream.tasks=11", "split_digits has 10 classes, so at most 10 tasks"),
        ("strategy.rank=high", "strategy.rank=high: it must be int, not str"),
        ("strategy._target_=no_such.Thing", "there is no module no_such"),
        ("output=/proc/nowhere", "cannot write there"),
        ("resume=nowhere", "this is no run folder"),
    ],
)
def test_mistakes_that_only_show_at_the_start_of_the_run(
    argument: str, answer: str, tmp_path: Path
) -> None:
    result = run(argument, cwd=tmp_path)
    assert result.returncode != 0
    assert answer in result.stderr
    assert "Traceback" not in result.stderr


def test_a_target_of_ones_own_replaces_the_preset() -> None:
    assert expand_targets(["strategy._target_=a.B", "strategy.x=1", "seed=2"]) == [
        "++strategy._target_=a.B",
        "++strategy.x=1",
        "seed=2",
        "strategy=custom",
    ]
    assert expand_targets(["strategy=ewc", "strategy.strength=1"]) == [
        "strategy=ewc",
        "strategy.strength=1",
    ]


HEAD_ONLY = '''
import torch

from cl.strategy import Strategy


class HeadOnly(Strategy):
    """A linear probe: the backbone is frozen, and the head shrinks a little at every step."""

    def __init__(self, shrink: float = 0.0) -> None:
        super().__init__()
        self.shrink = shrink
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def setup(self, model, stream):
        model.backbone.requires_grad_(False)

    def after_step(self):
        self.steps += 1
        with torch.no_grad():
            self.run.model.head.weight *= 1 - self.shrink
'''


def test_a_strategy_outside_the_repository(tmp_path: Path) -> None:
    assert len(HEAD_ONLY.strip().splitlines()) <= 30
    (tmp_path / "my_package.py").write_text(textwrap.dedent(HEAD_ONLY))
    result = run(
        "strategy._target_=my_package.HeadOnly",
        "strategy.shrink=1e-4",
        "backbone.image_size=8",
        "trainer.epochs=1",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "average accuracy" in result.stdout
    (folder,) = (tmp_path / "runs" / "split_digits" / "my_package.HeadOnly").glob("*/*")
    assert (folder / "summary.json").exists()
    assert (folder / "accuracy_matrix.csv").exists()


def test_an_unknown_argument_of_it_is_answered(tmp_path: Path) -> None:
    (tmp_path / "my_package.py").write_text(textwrap.dedent(HEAD_ONLY))
    result = run("strategy._target_=my_package.HeadOnly", "strategy.shrnk=1", cwd=tmp_path)
    assert result.returncode != 0
    assert "HeadOnly has no such argument. Did you mean shrink?" in result.stderr


def test_importing_cl_touches_neither_network_nor_folder_nor_seeds(tmp_path: Path) -> None:
    program = """
        import os, socket, sys
        def refuse(*arguments): raise AssertionError("network")
        socket.socket.connect = refuse
        import numpy, torch
        def state(): return os.getcwd(), str(numpy.random.get_state()), torch.get_rng_state().tolist()
        before = state()
        import cl.experiment, cl.learner, cl.strategy, cl.stream, cl.cli
        assert state() == before
        assert "avalanche" not in sys.modules
        assert not os.listdir(".")
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
