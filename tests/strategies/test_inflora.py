"""InfLoRA: old inputs are answered as before, and the memory is what it should be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.ops.tensors import TensorDict
from strategies.inflora import InfLoRA
from tests.conftest import Compose, toy_stream


def learner(compose: Compose, experiences: int = 1, **arguments: Any) -> Learner:
    cfg = compose("strategy=inflora", "trainer.lr=1e-2")
    cfg.strategy.update({"rank": 4, **arguments})
    made = Learner(cfg, toy_stream().info)
    for index in range(experiences):
        made.learn(toy_stream().experience(index))
    return made


def inflora(made: Learner) -> InfLoRA:
    assert isinstance(made.strategy, InfLoRA)
    return made.strategy


def test_the_rows_of_a_are_orthogonal_to_the_old_inputs_and_to_each_other(compose: Compose) -> None:
    strategy = inflora(learner(compose))
    strategy.before_experience(toy_stream().experience(1))
    for index, layer in enumerate(strategy.layers):
        M = strategy.basis(index).float()
        assert M.shape[1] >= 1
        for A in layer.A:
            assert (A @ M).abs().max() < 1e-5
            torch.testing.assert_close(3 * A @ A.T, torch.eye(4), rtol=0, atol=1e-5)
        assert torch.equal(layer.A[0], layer.A[1]), "k and v share it"


def test_inputs_of_old_tasks_are_answered_as_before(compose: Compose) -> None:
    made = learner(compose)
    strategy = inflora(made)
    spans = [strategy.basis(index).float() for index in range(len(strategy.layers))]
    before = [layer.base.weight.detach().clone() for layer in strategy.layers]
    made.learn(toy_stream().experience(1))
    for M, weight, layer in zip(spans, before, strategy.layers, strict=True):
        change = layer.base.weight.detach() - weight
        assert change.abs().max() > 1e-3
        assert (change @ M).abs().max() < 1e-5
        assert not change[: layer.base.in_features].any(), "the q rows are not adapted"


def test_the_hand_made_case(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """H = diag(9, 4, 1, 0 …), M = e1, rank 2: A = [e2; e3] / √3."""
    made = learner(compose, experiences=0, rank=2)
    strategy = inflora(made)
    H = torch.zeros(192, 192).double()
    H[0, 0], H[1, 1], H[2, 2] = 9, 4, 1
    count = len(strategy.layers)
    for index in range(count):
        strategy.memory[str(index)][0, 0] = 1.0
    monkeypatch.setattr(InfLoRA, "moments", lambda self, experience: [H] * count)
    strategy.before_experience(toy_stream().experience(1))
    expected = torch.eye(192)[1:3] / math.sqrt(3)
    torch.testing.assert_close(strategy.layers[0].A[0].abs(), expected)


def test_the_moments_are_means_over_all_tokens(compose: Compose) -> None:
    made = learner(compose)
    strategy, seen = inflora(made), []
    hook = strategy.layers[1].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    with torch.no_grad():
        for batch in strategy.batches(toy_stream().experience(1)):
            made.model(batch.images)
    hook.remove()
    x = torch.cat(seen).flatten(0, 1).double()
    H = strategy.moments(toy_stream().experience(1))[1]
    torch.testing.assert_close(H, x.T @ x / len(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("energy", ["squared", "variance"])
def test_the_memory_covers_the_share_that_it_should_and_is_orthonormal(
    compose: Compose, energy: str
) -> None:
    made = learner(compose, experiences=2, energy=energy, coverage=0.9, final_coverage=0.98)
    strategy = inflora(made)
    moments = strategy.moments(toy_stream().experience(1))
    for index, H in enumerate(moments):
        M = strategy.basis(index)
        torch.testing.assert_close(M.T @ M, torch.eye(M.shape[1]).double(), rtol=0, atol=1e-5)
        if energy == "squared":
            covered, one_less = (((P.T @ H).norm() / H.norm()) ** 2 for P in (M, M[:, :-1]))
        else:
            covered, one_less = ((P.T @ H @ P).trace() / H.trace() for P in (M, M[:, :-1]))
        assert covered >= 0.94 - 1e-6, "0.9 + (0.98 − 0.9) · 1/2"
        old = learner(compose, energy=energy, coverage=0.9, final_coverage=0.98).strategy
        assert isinstance(old, InfLoRA)
        if M.shape[1] > old.basis(index).shape[1]:
            assert one_less < 0.94 + 1e-6, "no direction more than needed"
        torch.testing.assert_close(M[:, : old.basis(index).shape[1]], old.basis(index))


def test_no_coverage_keeps_one_direction(compose: Compose) -> None:
    strategy = inflora(learner(compose, coverage=0.0))
    assert {strategy.basis(i).shape[1] for i in range(len(strategy.layers))} == {1}


def test_the_official_first_basis_has_one_direction_less(compose: Compose) -> None:
    ours = inflora(learner(compose, energy="variance"))
    official = inflora(learner(compose, energy="variance", first_basis="official"))
    for index in range(len(ours.layers)):
        longer, shorter = ours.basis(index), official.basis(index)
        assert longer.shape[1] > 1
        torch.testing.assert_close(shorter, longer[:, :-1])


def test_the_task_is_merged_and_only_b_was_trained(compose: Compose) -> None:
    made = learner(compose, experiences=0)
    strategy = inflora(made)
    merge, data = type(strategy.layers[0]).merge, toy_stream().test[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(strategy.layers[0]), "merge", lambda self: None)
        made.learn(toy_stream().experience(0))
    unmerged = made.logits(data)
    for layer in strategy.layers:
        assert layer.B.any()
        merge(layer)
        assert not layer.B.any()
    torch.testing.assert_close(made.logits(data), unmerged, rtol=1e-4, atol=1e-5)
    trained = {n.rpartition(".")[2] for n, p in made.model.named_parameters() if p.requires_grad}
    assert trained == {"B", "weight", "bias"}


def test_when_the_space_is_full_nothing_is_learned_any_more(compose: Compose) -> None:
    made = learner(compose, experiences=1)
    strategy = inflora(made)
    memory = TensorDict()
    for index in range(len(strategy.layers)):
        memory[str(index)] = torch.eye(192)
        memory[str(index)][190:, 190:] = 0.0
    strategy.memory = memory
    strategy.before_experience(toy_stream().experience(1))
    for layer in strategy.layers:
        assert layer.A[0, :2].abs().max() > 0.1
        assert not layer.A[:, 2:].any(), "two directions are left for four rows"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coverage": 1.5}, "coverage=1.5"),
        ({"energy": "entropy"}, "energy=entropy"),
        ({"first_basis": "none"}, "first_basis=none"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        InfLoRA(**arguments)


def test_a_rank_larger_than_the_layer_is_an_error(compose: Compose) -> None:
    with pytest.raises(ConfigurationError, match="rank=500"):
        learner(compose, rank=500)
