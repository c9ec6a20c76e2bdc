"""What every strategy must satisfy. A new file in strategies/ is here without being named."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import configs
from cl.checkpoint import load_state, load_tensors, save_tensors
from cl.data import ArrayDataset, Batch
from cl.data.arrays import Array
from cl.errors import ConfigurationError
from cl.experiment import Experiment
from cl.learner import Learner
from cl.loggers import ExperienceResult, Logger
from cl.stopping import StoppedError
from cl.strategy import Plugin, Progress, Strategy
from cl.stream import Experience, Stream
from tests.conftest import Compose, small_config, toy_stream

FOLDER = Path(configs.__file__).parent
STRATEGIES = sorted(f.stem for f in (FOLDER / "strategy").glob("*.yaml") if f.stem != "custom")
PLUGINS = sorted(f.stem for f in (FOLDER / "plugin").glob("*.yaml"))

# With this scope the tests of one strategy follow each other, so that they can share a run.
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, scope="module")


def nearest(name: str, others: Sequence[str], count: int) -> list[str]:
    """The others whose names hash best together with this one: a new one moves few of the old pairs."""
    return sorted(others, key=lambda other: sha256(f"{name} {other}".encode()).digest())[:count]


def pairs(strategies: Sequence[str], plugins: Sequence[str]) -> list[tuple[str, str]]:
    """Every strategy with two plugins at least, and every plugin with four strategies."""
    chosen = {(strategy, p) for strategy in strategies for p in nearest(strategy, plugins, 2)}
    return sorted(
        chosen | {(s, plugin) for plugin in plugins for s in nearest(plugin, strategies, 4)}
    )


PAIRS = pairs(STRATEGIES, PLUGINS)


def test_pairs_do_not_grow_quadratically() -> None:
    many, few = [f"strategy {i}" for i in range(70)], [f"plugin {i}" for i in range(10)]
    chosen = pairs(many, few)
    assert len(chosen) <= 2 * len(many) + 4 * len(few)
    assert all(sum(strategy == s for s, _ in chosen) >= 2 for strategy in many)
    assert all(sum(plugin == p for _, p in chosen) >= 4 for plugin in few)


def toy_config(folder: Path, *overrides: str, **strategy: Any) -> DictConfig:
    """As `small_config`, with batches from the memory of the size of the others."""
    cfg = small_config(folder, *overrides)
    for node in (cfg.strategy, *(cfg.plugin or {}).values()):
        if "memory_batch" in node:
            node.memory_batch = cfg.trainer.batch_size
    cfg.strategy = OmegaConf.merge(cfg.strategy, strategy)
    return cfg


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    return partial(toy_config, tmp_path)


def learn(learner: Learner, stream: Stream, experiences: int) -> Learner:
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


def make(compose: Compose, strategy: str, *overrides: str, **arguments: Any) -> Learner:
    cfg = compose(f"strategy={strategy}", *overrides, **arguments)
    return Learner(cfg, toy_stream().info)


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def whole(strategy: str, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A run of the toy stream from its beginning to its end, for tests that only look at it."""
    cfg = toy_config(tmp_path_factory.mktemp("whole"), f"strategy={strategy}")
    experiment = Experiment(cfg, loggers=[])
    experiment.run()
    return experiment


@every_strategy
def test_same_seed_same_bits(compose: Compose, strategy: str, whole: Experiment) -> None:
    again = learn(make(compose, strategy), toy_stream(), 2)
    assert_same(snapshot(again.state), snapshot(whole.learner.state))


@every_strategy
def test_another_seed_gives_another_result_unless_nothing_is_random(
    compose: Compose, strategy: str
) -> None:
    first, second = (
        learn(make(compose, strategy, "backbone.pretrained=true", f"seed={seed}"), toy_stream(), 1)
        for seed in (0, 1)
    )
    data = toy_stream().test[0]
    if not first.strategy.gradient_free:
        assert not torch.equal(first.logits(data), second.logits(data))


class StopInSecond(Logger):
    """Ends the run when the second experience is learnt, before there is a checkpoint of it."""

    def experience(self, result: ExperienceResult) -> None:
        if result.index == 1:
            raise KeyboardInterrupt


@every_strategy
def test_killed_and_resumed_gives_the_same_matrix(
    compose: Compose, strategy: str, whole: Experiment
) -> None:
    stopped = Experiment(compose(f"strategy={strategy}"), loggers=[StopInSecond()])
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = Experiment.resume(stopped.folder, loggers=[], trust=["tests"])
    assert resumed.matrix.rows == (0 if resumed.learner.strategy.own_loop else 1)
    resumed.run()
    assert resumed.matrix == whole.matrix
    assert_same(snapshot(resumed.learner.state), snapshot(whole.learner.state))


def stop_after(experiment: Experiment, index: int, step: int) -> None:
    """Let the run get the signal to terminate when it has taken this step of this experience."""
    checkpoint = experiment._checkpoint_midway

    def signalled(progress: Progress) -> None:
        if (progress.experience, progress.step) == (index, step):
            experiment.stop.number = signal.SIGTERM
        checkpoint(progress)

    experiment._checkpoint_midway = signalled  # type: ignore[method-assign]


@pytest.mark.parametrize("with_plugins", [False, True])
@every_strategy
def test_stopped_in_the_middle_and_resumed_gives_the_same_bits(
    compose: Compose, strategy: str, with_plugins: bool
) -> None:
    plugins = [plugin for chosen, plugin in PAIRS if with_plugins and chosen == strategy]
    cfg = compose(
        f"strategy={strategy}", f"plugin=[{','.join(plugins)}]", "trainer.schedule=cosine"
    )
    whole, stopped = (Experiment(cfg, loggers=[]) for _ in range(2))
    stop_after(stopped, index=1, step=4)  # the first of the second epoch
    if stopped.learner.strategy.own_loop:
        return  # there is no step of ours to stop after
    whole.run()
    if stopped.learner.strategy.gradient_free or whole.learner.strategy.gradient_free:
        return  # nor is there any other
    with pytest.raises(StoppedError, match="resume="):
        stopped.run()
    resumed = Experiment.resume(stopped.folder, loggers=[], trust=["tests"])
    assert resumed.midway is not None
    assert resumed.matrix.rows == 1
    resumed.run()
    assert resumed.matrix == whole.matrix
    assert_same(snapshot(resumed.learner.state), snapshot(whole.learner.state))


@every_strategy
def test_predict_changes_nothing_and_does_not_depend_on_the_batch(
    strategy: str, whole: Experiment
) -> None:
    learner = whole.learner
    test = toy_stream().test[1]
    before = snapshot(learner.state)
    together = learner.logits(test)
    reversed_order = learner.logits(test.subset(torch.arange(len(test)).flip(0).numpy())).flip(0)
    single = torch.cat([learner.logits(test.subset(torch.tensor([i]).numpy())) for i in range(8)])
    assert_same(before, snapshot(learner.state))
    assert together.shape == (len(test), 4)
    torch.testing.assert_close(together, reversed_order, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[:8], single, rtol=1e-4, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class GuardedData(ArrayDataset):
    """Images that can be read only while their experience lasts, and no others beside them."""

    open: list[bool] = dataclasses.field(default_factory=lambda: [True])

    def take(self, positions: Array) -> tuple[Array, Array]:
        assert self.open[0], "the strategy read the data of an experience that is over"
        return super().take(positions)

    def pixels_at(self, positions: Array) -> Array:
        assert self.open[0], "the strategy read the data of an experience that is over"
        return super().pixels_at(positions)

    def labels_at(self, positions: Array) -> Array:
        assert self.open[0], "the strategy read the data of an experience that is over"
        return super().labels_at(positions)

    def subset(self, positions: Array) -> GuardedData:
        return GuardedData(self.images, self.labels, self.rows[positions], self.open)


def guarded(experience: Experience) -> tuple[Experience, list[bool]]:
    data = experience.train
    everything = torch.arange(len(data)).numpy()
    images, labels = data.take(everything)
    only = GuardedData(images, labels, everything)
    return dataclasses.replace(experience, train=only), only.open


@every_strategy
def test_past_data_and_future_classes_are_out_of_reach(compose: Compose, strategy: str) -> None:
    learner = make(compose, strategy)
    for index in range(2):
        experience, is_open = guarded(toy_stream().experience(index))
        learner.learn(experience)
        is_open[0] = False
        logits = learner.logits(toy_stream().test[index])
        assert logits.shape[1] == experience.seen, "logits over the classes seen, no more"


@pytest.mark.parametrize("look", [lambda batch: batch.labels, lambda batch: batch.images.sum()])
def test_a_strategy_that_peeks_is_caught(compose: Compose, look: Callable[[Batch], object]) -> None:
    class Peeking(Strategy):
        kept: Experience | None = None

        def after_experience(self, experience: Experience) -> None:
            if self.kept is not None:
                look(next(self.batches(self.kept)))
            self.kept = experience

    learner = make(compose, "naive")
    learner.strategy = Peeking()
    learner.strategy.run = learner.run
    experience, is_open = guarded(toy_stream().experience(0))
    learner.learn_experience(experience)
    is_open[0] = False
    with pytest.raises(AssertionError, match="experience that is over"):
        learner.learn_experience(toy_stream().experience(1))


@every_strategy
def test_grows_as_declared(compose: Compose, strategy: str) -> None:
    learner, stream = make(compose, strategy), toy_stream(tasks=4)
    learn(learner, stream, 2)
    second = learner.stored_numbers
    learner.learn(stream.experience(2))
    third = learner.stored_numbers
    learner.learn(stream.experience(3))
    assert learner.logits(stream.test[0]).isfinite().all(), "also with one class a task"
    growth, head = learner.stored_numbers - third, learner.model.features + 1
    assert growth >= 0
    if learner.strategy.grows == "head":
        # Its rows, and what the method holds for every trained number: for example anchor and Fisher.
        assert growth % head == 0
        assert growth == third - second
    else:
        assert growth > head


class GradientSpy(Plugin):
    """Notes which trainable tensors have ever had a gradient that is not zero."""

    transient = ("strategy",)

    def __init__(self, strategy: Strategy) -> None:
        super().__init__()
        self.strategy = [strategy]
        self.reached: set[int] = set()

    def after_backward(self) -> None:
        self.reached |= {id(p) for p in self.trained() if p.grad is not None and p.grad.any()}

    def trained(self) -> list[torch.nn.Parameter]:
        return [p for group in self.strategy[0].parameter_groups() for p in group["params"]]


@every_strategy
def test_every_trainable_tensor_gets_a_gradient(compose: Compose, strategy: str) -> None:
    learner, stream = make(compose, strategy), toy_stream()
    learner.learn(stream.experience(0))
    spy = GradientSpy(learner.strategy)
    spy.run = learner.run
    learner.plugins.append(spy)
    learner.learn(stream.experience(1))
    if learner.strategy.gradient_free:
        assert learner.trainable_parameters == 0
        assert not spy.reached
        return
    if learner.strategy.own_loop:
        assert learner.trainable_parameters > 0
        assert not spy.reached, "it trains where plugins do not see it"
        return
    names = {id(p): name for name, p in learner.state.named_parameters()}
    unreached = [names.get(id(p), "?") for p in spy.trained() if id(p) not in spy.reached]
    assert spy.reached
    assert not unreached


@every_strategy
def test_neutral_arguments_are_naive_fine_tuning(compose: Compose, strategy: str) -> None:
    neutral = make(compose, strategy).strategy.neutral
    if neutral is None:
        return  # no arguments turn this method into fine-tuning
    arguments = "trainer.lr=1e-3"
    method = learn(make(compose, strategy, arguments, **neutral), toy_stream(), 2)
    naive = learn(make(compose, "naive", arguments), toy_stream(), 2)
    assert_same(snapshot(method.model), snapshot(naive.model))


@every_strategy
def test_saved_learner_goes_on_where_it_was(
    compose: Compose, strategy: str, tmp_path: Path
) -> None:
    stream = toy_stream()
    learner = learn(make(compose, strategy), stream, 1)
    learner.save(tmp_path / "saved")
    opened = Learner.load(tmp_path / "saved")
    assert torch.equal(opened.logits(stream.test[0]), learner.logits(stream.test[0]))
    if learner.strategy.own_loop:
        with pytest.raises(ConfigurationError, match="not go on learning"):
            opened.learn(stream.experience(1))
        return
    for each in (learner, opened):
        each.learn(stream.experience(1))
    assert_same(snapshot(opened.state), snapshot(learner.state))


@every_strategy
def test_state_round_trip_needs_no_code(
    compose: Compose, strategy: str, tmp_path: Path, whole: Experiment
) -> None:
    learner = whole.learner
    save_tensors(learner.state.state_dict(), tmp_path / "state.safetensors")
    fresh = make(compose, strategy)
    load_state(
        fresh.state, load_tensors(tmp_path / "state.safetensors"), tmp_path / "state.safetensors"
    )
    assert_same(snapshot(fresh.state), snapshot(learner.state))


@pytest.mark.parametrize(("strategy", "plugin"), PAIRS, scope="module")
def test_plugins_combine_with_strategies(
    compose: Compose, plugin: str, strategy: str, whole: Experiment
) -> None:
    learner = make(compose, strategy, f"plugin=[{plugin}]")
    assert len(learner.plugins) == 1
    learn(learner, toy_stream(), 2)
    if learner.strategy.gradient_free or learner.strategy.own_loop:
        return  # nothing is trained in the second experience, so there is nothing to add to
    data = toy_stream().test[0]
    alone = whole.learner.logits(data)
    assert not torch.equal(learner.logits(data), alone), "the plugin has an effect"
