"""OSFT within a run: ranks, what is trained, and that what is held survives a task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.subspace import HeldBlock, SubspaceLayer, subspace_layers
from cl.strategy import Plugin
from strategies.osft import OSFT, frozen_rank
from tests.conftest import Compose, toy_stream


class Witness(Plugin):
    """Notes every layer's weight before the task, and what is held in it during the task."""

    def before_experience(self, experience: Any) -> None:
        self.held = [
            [(part.left.clone(), part.right.clone()) for part in layer.matrices]
            for layer in self.layers
        ]
        self.before = [layer.base.weight.detach().clone() for layer in self.layers]

    @property
    def layers(self) -> list[SubspaceLayer]:
        return list(subspace_layers(self.run.model))


def train(compose: Compose, *overrides: str, tasks: int = 1) -> tuple[Learner, Witness]:
    made = Learner(compose("strategy=osft", "trainer.lr=1e-3", *overrides), toy_stream().info)
    witness = Witness()
    witness.run = made.run
    made.plugins.append(witness)
    for index in range(tasks):
        made.learn(toy_stream().experience(index))
    return made, witness


def changes(witness: Witness) -> list[tuple[Tensor, Tensor, Tensor]]:
    """U_h, V_h and the change of the weight in the last task, of every matrix."""
    return [
        (left, right, after - before)
        for held, old, layer in zip(witness.held, witness.before, witness.layers, strict=True)
        for (left, right), before, after in zip(
            held,
            old.chunk(len(held)),
            layer.base.weight.detach().chunk(len(held)),
            strict=True,
        )
    ]


@pytest.mark.parametrize("task", [1, 2])
@pytest.mark.parametrize("schedule", ["adaptive", "linear"])
def test_after_a_task_the_weights_have_moved_beside_the_held_directions_only(
    compose: Compose, task: int, schedule: str
) -> None:
    _, witness = train(
        compose, f"strategy.schedule={schedule}", "trainer.weight_decay=0.1", tasks=task
    )
    seen = changes(witness)
    assert len(seen) == 4 * (3 + 1 + 1 + 1)
    for left, right, change in seen:
        free = min(change.shape) - left.shape[1]
        assert change.abs().max() > (1e-4 if free > 10 else 1e-6)
        assert (left.T @ change).abs().max() < 2e-5
        assert (change @ right).abs().max() < 2e-5


def test_the_block_form_lets_one_side_move(compose: Compose) -> None:
    _, witness = train(compose, "strategy.projection=block", "strategy.schedule=linear")
    assert all(isinstance(part, HeldBlock) for part in witness.layers[0].matrices)
    for left, right, change in changes(witness):
        assert (left.T @ change @ right).abs().max() < 2e-5
        assert (left.T @ change).abs().max() > 1e-4


def test_the_linear_schedule_goes_from_the_first_ratio_to_the_last(compose: Compose) -> None:
    for task, share in ((1, 0.5), (2, 0.9)):
        made, witness = train(compose, "strategy.schedule=linear", tasks=task)
        ranks = {left.shape[1] for left, _, _ in changes(witness)}
        assert ranks == {frozen_rank(share, 192)}
        assert float(made.logged["frozen_share"]) == pytest.approx(share, abs=1 / 192)


def test_the_adaptive_ranks_follow_the_importance_of_the_last_task(compose: Compose) -> None:
    _, witness = train(compose, tasks=2)
    first, _ = train(compose)
    assert isinstance(first.strategy, OSFT)
    importance = first.strategy.importance
    relative = importance.clamp(min=0) / importance.clamp(min=0).mean()
    expected = [frozen_rank(min(1.0, 0.1 + 0.7 * float(i)), 192) for i in relative]
    assert [left.shape[1] for left, _, _ in changes(witness)] == expected
    assert len(set(expected)) > 2


def test_importance_is_the_mean_cosine_of_the_layers_own_inputs(compose: Compose) -> None:
    made, _ = train(compose)
    strategy = made.strategy
    assert isinstance(strategy, OSFT)
    layer = next(subspace_layers(made.model))
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    with torch.no_grad():
        for batch in strategy.batches(toy_stream().experience(0)):
            made.model(batch.images)
    hook.remove()
    x = torch.cat(seen)
    for row, weight in enumerate(layer.base.weight.detach().split(192)):
        expected = torch.cosine_similarity(x, x @ weight.T, dim=-1).mean()
        assert strategy.importance[row].item() == pytest.approx(expected.item(), abs=1e-5)


def test_nothing_of_the_factors_is_left_between_two_tasks(compose: Compose) -> None:
    made, _ = train(compose)
    for layer in subspace_layers(made.model):
        assert not layer.decomposed
        assert sum(t.numel() for t in layer.parts.state_dict().values()) == 0
    plain = Learner(compose("strategy=naive"), toy_stream().info)
    plain.learn(toy_stream().experience(0))
    assert isinstance(made.strategy, OSFT)
    assert made.stored_numbers == plain.stored_numbers + len(made.strategy.importance)
    assert made.trainable_parameters > 1_000_000 * 0.2, "the factors are counted"


def test_biases_norms_and_embeddings_are_trained_unless_told_otherwise(compose: Compose) -> None:
    for others in (True, False):
        made, _ = train(compose, f"strategy.train_others={others}")
        fresh = Learner(compose("strategy=osft"), toy_stream().info)
        old = dict(fresh.model.named_parameters())
        for name, weight in made.model.named_parameters():
            other = name.startswith("backbone") and not name.endswith("base.weight")
            if other and weight.numel():
                assert torch.equal(weight, old[name]) != others, name


def test_at_least_one_direction_is_free() -> None:
    assert [frozen_rank(r, 10) for r in (0.0, 0.35, 0.7, 1.0)] == [0, 3, 7, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "cosine"}, "schedule=cosine"),
        ({"projection": "none"}, "projection=none"),
        ({"target_ratio": 1.0}, "target_ratio=1.0"),
        ({"importance_images": 0}, "importance_images"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        OSFT(**arguments)
