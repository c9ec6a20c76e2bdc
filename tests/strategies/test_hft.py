"""HFT: what is frozen does not move by a bit, and it is one half."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.units import Unit, find_units
from cl.strategy import Plugin, Run
from strategies.hft import HFT, draw_half
from tests.conftest import Compose, toy_stream

SGD = ("trainer.optimizer=sgd", "trainer.momentum=0.9")
ADAMW = ("trainer.optimizer=adamw",)


def learner(compose: Compose, *overrides: str, **arguments: Any) -> Learner:
    cfg = compose("strategy=hft", "trainer.lr=1e-2", "trainer.weight_decay=0.1", *overrides)
    cfg.strategy.update(arguments)
    return Learner(cfg, toy_stream().info)


class Witness(Plugin):
    """Notes the weights and what is frozen just before training."""

    def before_experience(self, experience: Any) -> None:
        self.before = {n: p.detach().clone() for n, p in self.run.model.backbone.named_parameters()}
        self.buffers = {n: b.clone() for n, b in self.run.model.backbone.named_buffers()}


def train(made: Learner, experience: int = 0) -> tuple[list[Unit], Witness]:
    """Learn an experience; returns what was frozen in it and the weights before."""
    assert isinstance(made.strategy, HFT)
    witness = Witness()
    witness.run = made.run
    made.plugins[:] = [witness]
    made.learn(toy_stream().experience(experience))
    return made.strategy.draw(made.strategy.generator("half", experience)), witness


@pytest.mark.parametrize("optimiser", [SGD, ADAMW])
@pytest.mark.parametrize("level", ["category", "layer", "model"])
@pytest.mark.parametrize("train_embeddings", [True, False])
def test_the_frozen_half_is_bit_identical_and_the_rest_has_moved(
    compose: Compose, optimiser: tuple[str, ...], level: str, train_embeddings: bool
) -> None:
    made = learner(compose, *optimiser, level=level, train_embeddings=train_embeddings)
    for experience in range(2):
        frozen, witness = train(made, experience)
        weights = dict(made.model.backbone.named_parameters())
        keys = {(name, str(unit.rows)) for unit in frozen for name in unit.parameters}
        units = find_units(made.model.backbone)
        for unit in units:
            for name in unit.parameters:
                same = weights[name] == witness.before[name]
                part = same[unit.rows or slice(None)]
                assert part.all() if (name, str(unit.rows)) in keys else not part.all(), name
        inside = {name for unit in units for name in unit.parameters}
        for name in weights.keys() - inside:
            assert torch.equal(weights[name], witness.before[name]) != train_embeddings, name


def test_a_frozen_batch_norm_keeps_its_statistics(compose: Compose) -> None:
    made = learner(compose, "backbone=resnet18", "backbone.image_size=32", *SGD)
    frozen, witness = train(made)
    held = {name.rpartition(".")[0] for unit in frozen for name in unit.parameters}
    means = {n: b for n, b in made.model.backbone.named_buffers() if n.endswith("running_mean")}
    still = {name for name, mean in means.items() if torch.equal(mean, witness.buffers[name])}
    assert still == {name for name in means if name.rpartition(".")[0] in held}
    assert 0 < len(still) < len(means)


def test_every_block_freezes_two_of_four_one_of_two_and_one_norm(compose: Compose) -> None:
    made = learner(compose)
    assert isinstance(made.strategy, HFT)
    frozen = made.strategy.draw(torch.Generator().manual_seed(0))
    counts = Counter((unit.block, unit.kind) for unit in frozen)
    blocks = {unit.block for unit in find_units(made.model.backbone)}
    for block in blocks:
        assert counts[block, "attention"] == 2
        assert counts[block, "mlp"] == 1
        assert counts[block, "norm"] == 1
    weights = dict(made.model.backbone.named_parameters())

    def matrices(units: list[Unit]) -> int:
        chosen = [u for u in units if u.kind in ("attention", "mlp")]
        return sum(
            weights[name][u.rows or slice(None)].numel()
            for u in chosen
            for name in u.parameters
            if weights[name].dim() == 2
        )

    assert 2 * matrices(frozen) == matrices(find_units(made.model.backbone))


@pytest.mark.parametrize(
    ("blocks", "matrices", "frozen"), [(32, 3, 48), (12, 2, 12), (5, 3, 7), (4, 1, 2)]
)
def test_an_odd_number_of_matrices_alternates_between_the_blocks(
    blocks: int, matrices: int, frozen: int
) -> None:
    groups = [[(block, matrix) for matrix in range(matrices)] for block in range(blocks)]
    chosen = draw_half(groups, torch.Generator().manual_seed(1))
    assert len(chosen) == len(set(chosen)) == frozen
    per_block = Counter(block for block, _ in chosen)
    assert {per_block[block] for block in range(blocks)} <= {matrices // 2, (matrices + 1) // 2}


def test_a_residual_block_trains_the_larger_half_of_its_convolutions(compose: Compose) -> None:
    """ResNet-18: eight blocks of two convolutions, three of which have a third in their shortcut."""
    strategy = learner(compose, "backbone=resnet18", "backbone.image_size=32").strategy
    assert isinstance(strategy, HFT)
    units = find_units(strategy.run.model.backbone)
    convolutions = Counter(unit.block for unit in units)
    assert sorted(convolutions.values()) == [2] * 5 + [3] * 3
    for seed in range(5):
        frozen = strategy.draw(torch.Generator().manual_seed(seed))
        assert Counter(unit.block for unit in frozen) == dict.fromkeys(convolutions, 1)


def test_layer_level_freezes_whole_blocks_and_model_level_half_of_all_units(
    compose: Compose,
) -> None:
    made = learner(compose, level="layer")
    assert isinstance(made.strategy, HFT)
    frozen = made.strategy.draw(torch.Generator().manual_seed(0))
    assert set(Counter(unit.block for unit in frozen).values()) == {8}
    assert len(frozen) == 16
    made = learner(compose, level="model")
    assert isinstance(made.strategy, HFT)
    frozen = made.strategy.draw(torch.Generator().manual_seed(0))
    assert len(set(map(str, frozen))) == 16
    assert len(set(Counter(unit.block for unit in frozen).values())) > 1


def test_the_draw_depends_on_seed_and_task_only(compose: Compose) -> None:
    first, second, other = learner(compose), learner(compose), learner(compose, "seed=1")
    drawn = [
        made.strategy.draw(made.strategy.generator("half", task))
        for made, task in ((first, 0), (second, 0), (first, 1), (other, 0))
        if isinstance(made.strategy, HFT)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert drawn[0] != drawn[3]


def test_a_matrix_is_trained_in_half_of_the_tasks(compose: Compose) -> None:
    """The strategy's own draws, each from the generator of (seed, task)."""
    strategy, rounds = learner(compose).strategy, 400
    assert isinstance(strategy, HFT)
    times = Counter(
        (unit.block, unit.parameters, str(unit.rows))
        for task in range(rounds)
        for unit in strategy.draw(strategy.generator("half", task))
        if unit.kind == "attention"
    )
    assert len(times) == 4 * 4
    for count in times.values():  # binomial: the standard deviation is 10
        assert abs(count - rounds / 2) < 50


class Two(torch.nn.Module):
    """A block of two matrices of one number each, both zero, under the names of a Llama."""

    def __init__(self) -> None:
        super().__init__()
        layers = {name: torch.nn.Linear(1, 1, bias=False) for name in ("q_proj", "k_proj")}
        self.self_attn = torch.nn.ModuleDict(layers)
        for layer in layers.values():
            layer.weight.data.zero_()


@pytest.mark.parametrize("redraw", ["task", "epoch"])
def test_two_weights_of_which_one_is_frozen_reach_the_optimum_in_turn(
    monkeypatch: pytest.MonkeyPatch, redraw: str
) -> None:
    """½(w1−1)² + ½(w2−1)² from 0: ½ when the one has been trained, 0 when the other has been too."""
    strategy, model = HFT(redraw=redraw), torch.nn.Module()
    model.backbone = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([Two()])})
    monkeypatch.setattr(strategy, "grow_head", lambda experience: None)
    seed = 2  # with it the two tasks freeze different weights
    strategy.run = Run(model, seed)  # type: ignore[arg-type]
    weights = list(model.parameters())
    for task, expected in ((0, 0.5), (1, 0.0)):
        strategy.before_experience(toy_stream().experience(task))
        (group,) = strategy.parameter_groups()
        optimiser = torch.optim.AdamW(group["params"], lr=0.05, weight_decay=0.0)
        for _ in range(600):
            loss = sum(0.5 * (weight - 1).square().sum() for weight in weights)
            assert isinstance(loss, torch.Tensor)
            optimiser.zero_grad()
            loss.backward()
            strategy.after_backward()
            optimiser.step()
            strategy.after_step()
        assert loss.item() == pytest.approx(expected, abs=1e-6)
        assert sum(weight.item() == 0.0 for weight in weights) == 1 - task


def test_the_share_that_was_trained_is_reported(compose: Compose) -> None:
    made = learner(compose)
    made.learn(toy_stream().experience(0))
    assert 0.45 < float(made.logged["trained_share"]) < 0.6


class Watch(Plugin):
    """Notes, step by step, which rows of which weights are frozen, and all weights."""

    transient = ("strategy",)

    def __init__(self, strategy: HFT) -> None:
        super().__init__()
        self.strategy = [strategy]
        self.frozen: list[dict[str, list[int]]] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def after_step(self) -> None:
        self.frozen.append({name: rows.tolist() for name, rows, _ in self.strategy[0].held})
        weights = self.run.model.backbone.named_parameters()
        self.weights.append({name: weight.detach().clone() for name, weight in weights})


def test_another_half_in_every_epoch(compose: Compose) -> None:
    """Three steps an epoch: the half stays for three, then another is drawn; the frozen rows do not move."""
    made = learner(compose, "trainer.epochs=3", *ADAMW, redraw="epoch")
    assert isinstance(made.strategy, HFT)
    watch = Watch(made.strategy)
    watch.run = made.run
    made.plugins[:] = [watch]
    made.learn(toy_stream().experience(0))
    assert len(watch.frozen) == 9
    epochs = [watch.frozen[first : first + 3] for first in (0, 3, 6)]
    assert all(step == steps[0] for steps in epochs for step in steps)
    assert epochs[0][0] != epochs[1][0] != epochs[2][0] != epochs[0][0]
    for step in range(1, 9):
        before, after = watch.weights[step - 1], watch.weights[step]
        for name, rows in watch.frozen[step].items():
            assert torch.equal(after[name][rows], before[name][rows]), (step, name)
            others = sorted(set(range(len(after[name]))) - set(rows))
            assert not others or not torch.equal(after[name][others], before[name][others])
    assert 0.45 < float(made.logged["trained_share"]) < 0.6


def test_the_first_epochs_half_is_the_tasks(compose: Compose) -> None:
    once = [learner(compose, "trainer.epochs=1", redraw=redraw) for redraw in ("task", "epoch")]
    for made in once:
        made.learn(toy_stream().experience(0))
    for name, tensor in once[0].model.state_dict().items():
        assert torch.equal(tensor, once[1].model.state_dict()[name]), name


@pytest.mark.parametrize("argument", ["level", "redraw"])
def test_an_unknown_option_is_an_error(argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{argument}=head"):
        HFT(**{argument: "head"})
