"""What a method holds survives both kinds of checkpoint, or is refused by name."""

from __future__ import annotations

import collections
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl import restoring, snapshot
from cl.checkpoint import load_json, load_tensors, save_json, save_tensors
from cl.data import Batch
from cl.learner import Learner
from cl.strategy import Progress, Strategy
from cl.stream import Experience
from tests.conftest import Compose, toy_stream

CPU = torch.device("cpu")


class Pair:
    """An object of the user's own."""

    def __init__(self) -> None:
        self.first, self.second = 1, torch.zeros(2)


class Holder(nn.Module):
    """A module whose attributes the tests set."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.pair = Pair()
        self.factory: Any = collections.defaultdict(int)
        self.function: Callable[[float], float] = abs
        self._hidden = 0
        self.teacher = [nn.Linear(2, 1)]


def again(holder: Holder, folder: Path) -> Holder:
    """What comes back through files."""
    fresh = Holder()
    built = snapshot.survey(fresh)  # as that of `holder` was
    tensors, values = snapshot.take(holder, holder.built)  # type: ignore[arg-type]
    save_tensors(tensors, folder / "t.safetensors")
    save_json(values, folder / "v.json")
    stored = load_tensors(folder / "t.safetensors"), load_json(folder / "v.json")
    restoring.put(fresh, *stored, CPU)
    assert built.values
    return fresh


@pytest.fixture
def holder() -> Holder:
    made = Holder()
    object.__setattr__(made, "built", snapshot.survey(made))
    type(made).transient = ("built",)  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -7,
        2**70,
        0.1,
        float("inf"),
        "ünï\n",
        [1, [2.5, "a"], ()],
        (1, (2, 3)),
        {1: "a", "1": "b", None: 3, (1, 2): [4]},
        {1, 5, 3},
        frozenset({"a", "b"}),
        collections.deque([1, 2]),
        collections.Counter("abca"),
        collections.OrderedDict([("b", 1), ("a", 2)]),
    ],
)
def test_plain_values_come_back_with_their_types(
    holder: Holder, tmp_path: Path, value: Any
) -> None:
    holder.thing = value
    found = again(holder, tmp_path).thing
    assert found == value
    assert type(found) is type(value)


def test_tensors_arrays_and_generators_come_back(holder: Holder, tmp_path: Path) -> None:
    holder.inside = {3: [torch.arange(3), np.eye(2)], "n": np.float32(0.5)}
    holder.random = torch.Generator().manual_seed(5)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    found = again(holder, tmp_path)
    assert torch.equal(found.inside[3][0], torch.arange(3))  # type: ignore[index]
    assert np.array_equal(found.inside[3][1], np.eye(2))  # type: ignore[index]
    number = found.inside["n"]  # type: ignore[index]
    assert number == np.float32(0.5)
    assert type(number) is np.float32
    assert torch.equal(torch.rand(3, generator=found.random), expected)  # type: ignore[arg-type]


def test_objects_hidden_attributes_and_filled_dicts_come_back(
    holder: Holder, tmp_path: Path
) -> None:
    holder.pair.second = torch.tensor([3.0])
    holder.pair.first = 9
    holder._hidden = 4
    holder.factory["a"] += 2
    found = again(holder, tmp_path)
    assert (found.pair.first, found.pair.second.item(), found._hidden) == (9, 3.0, 4)
    assert found.factory["a"] == 2
    assert found.factory["new"] == 0


def test_a_module_that_torch_does_not_find_keeps_its_weights(
    holder: Holder, tmp_path: Path
) -> None:
    with torch.no_grad():
        holder.teacher[0].weight.fill_(0.25)
    assert again(holder, tmp_path).teacher[0].weight.eq(0.25).all()


def test_what_is_as_it_was_built_is_not_written(holder: Holder) -> None:
    tensors, values = snapshot.take(holder, holder.built)  # type: ignore[arg-type]
    assert "pair" in str(values), "it holds a tensor, which may have been written into"
    assert ":function" not in str(values)
    assert ":_hidden" not in str(values)
    assert len(tensors) == 3  # of the pair, and weight and bias of the teacher


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (lambda x: x, "a function"),
        (nn.Linear(1, 1), None),  # an attribute: torch finds it
        ([nn.Linear(1, 1)], "torch.nn.modules.linear.Linear"),
        ([nn.Parameter(torch.ones(1))], "Parameter"),
        (random.Random(0), "random.Random"),
        (np.random.default_rng(0), "Generator"),
        (Pair(), "Pair"),
        (iter([1]), "list_iterator"),
        (functools.partial(abs), "functools.partial"),
        (collections.defaultdict(list), "defaultdict"),
        (np.array(["a"], dtype=object), "ndarray"),
        (collections.namedtuple("P", "x")(1), "P"),
    ],
)
def test_what_came_later_and_cannot_be_written_is_refused_by_name(
    holder: Holder, value: Any, told: str | None
) -> None:
    holder.thing = value
    if told is None:
        snapshot.take(holder, holder.built)  # type: ignore[arg-type]
        return
    with pytest.raises(snapshot.StateError, match=r"\.thing.*holds a .*") as error:
        snapshot.take(holder, holder.built)  # type: ignore[arg-type]
    assert told.split()[-1] in str(error.value)
    assert "transient = ('thing',)" in str(error.value)


def test_a_hidden_random_state_is_refused_even_if_it_was_there(holder: Holder) -> None:
    holder.dice = random.Random(0)
    built = snapshot.survey(holder)
    with pytest.raises(snapshot.StateError, match="dice"):
        snapshot.take(holder, built)


class Counting(Strategy):
    """Naive fine-tuning that counts in plain Python, and lets the count act on the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[int, int] = {}
        self.classes: set[int] = set()
        self._steps = 0
        self.best: tuple[float, Tensor] | None = None

    def loss(self, batch: Batch) -> Tensor:
        for label in batch.labels.tolist():
            self.shown[label] = self.shown.get(label, 0) + 1
            self.classes.add(label)
        self._steps += 1
        loss = super().loss(batch)
        self.best = (float(loss), loss.detach())
        return loss * (1 + 0.01 * self._steps + 0.001 * sum(self.shown.values()))


def counting(compose: Compose) -> Learner:
    cfg = compose("strategy=custom", "strategy._target_=tests.cl.test_snapshot.Counting")
    return Learner(cfg, toy_stream().info)


def test_a_methods_counters_survive_save_and_go_on(compose: Compose, tmp_path: Path) -> None:
    whole, stream = counting(compose), toy_stream()
    whole.learn(stream.experience(0))
    whole.save(tmp_path / "saved")
    opened = Learner.load(tmp_path / "saved", trust=["tests"])
    method: Any = opened.strategy
    assert method.shown == {0: 24, 1: 24}
    assert method.classes == {0, 1}
    assert method._steps == 6
    assert method.best[1].item() == method.best[0]
    for learner in (whole, opened):
        learner.learn(stream.experience(1))
    for name, tensor in whole.state.state_dict().items():
        assert torch.equal(tensor, opened.state.state_dict()[name]), name


class Hoarding(Strategy):
    """Keeps an experience, which it must not."""

    def after_experience(self, experience: Experience) -> None:
        self.kept = experience


def test_save_refuses_what_it_cannot_keep_and_writes_nothing(
    compose: Compose, tmp_path: Path
) -> None:
    cfg = compose("strategy=custom", "strategy._target_=tests.cl.test_snapshot.Hoarding")
    learner = Learner(cfg, toy_stream().info)
    learner.learn(toy_stream().experience(0))
    with pytest.raises(snapshot.StateError, match=r"strategy\.kept holds a cl\.experience\.Exp"):
        learner.save(tmp_path / "saved")
    assert not any((tmp_path / "saved").iterdir())


def test_a_learn_that_fails_leaves_the_learner_as_it_was(compose: Compose) -> None:
    stream = toy_stream(tasks=4)
    learner, twin = (Learner(compose("strategy=er"), stream.info) for _ in range(2))
    for index in range(2):
        for each in (learner, twin):
            each.learn(stream.experience(index))
    steps = []

    def fail(progress: Progress) -> None:
        steps.append(progress.step)
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.learn(stream.experience(2), on_step=fail)
    assert steps == [1, 2, 3], "it failed when it had changed"
    assert learner.class_names == twin.class_names
    assert learner.trainable_parameters == twin.trainable_parameters
    for _ in range(2):
        a, b = learner.state.state_dict(), twin.state.state_dict()
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
        for each in (learner, twin):
            each.learn(stream.experience(2 + _))
