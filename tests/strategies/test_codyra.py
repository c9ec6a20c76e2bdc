"""CoDyRA: the gates decide about the rank, and the task is merged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.lora import GatedLoRALayer, LoRALayer
from strategies.codyra import CoDyRA
from tests.conftest import Compose, toy_stream


def learner(compose: Compose, *overrides: str, experiences: int = 0, **arguments: Any) -> Learner:
    cfg = compose("strategy=codyra", "strategy.rank=4", *overrides)
    cfg.strategy.update(arguments)
    made = Learner(cfg, toy_stream().info)
    for index in range(experiences):
        made.learn(toy_stream().experience(index))
    return made


def codyra(made: Learner) -> CoDyRA:
    assert isinstance(made.strategy, CoDyRA)
    return made.strategy


def gated(seed: int = 0, zeros: tuple[int, ...] = (1, 3)) -> GatedLoRALayer:
    """A layer with two adapted blocks of rank 5 and some gates at zero."""
    torch.manual_seed(seed)
    layer = GatedLoRALayer(nn.Linear(8, 12), 5, 5.0, blocks=[slice(0, 6), slice(6, 12)])
    layer.reset(torch.Generator().manual_seed(seed))
    layer.B.data.normal_()
    layer.gate.data[:, list(zeros)] = 0.0
    return layer


def test_the_layer_is_the_sum_of_weighted_rank_one_terms() -> None:
    layer = gated()
    x = torch.randn(3, 8)
    expected = layer.base(x)
    for block, A, B, w in zip(layer.blocks, layer.A, layer.B, layer.gate, strict=True):
        expected[:, block] += ((x @ A.T) * w) @ B.T
    torch.testing.assert_close(layer(x), expected)
    plain = nn.Linear(8, 12)
    plain.load_state_dict(layer.merged_state())
    torch.testing.assert_close(plain(x), expected)


def test_a_new_task_changes_nothing_whatever_the_gates() -> None:
    layer = gated()
    layer.reset(torch.Generator().manual_seed(1))
    assert layer.gate.std() > 0.3
    x = torch.randn(3, 8)
    assert torch.equal(layer(x), layer.base(x))


def test_the_rank_is_at_most_the_number_of_gates_that_are_left() -> None:
    layer = gated()
    change = layer.delta(*layer.factors())
    for block in layer.blocks:
        part = change[block].double()
        assert torch.linalg.matrix_rank(part, tol=1e-6) == 3
        assert part.norm() ** 2 <= 3 * torch.linalg.matrix_norm(part, 2) ** 2 + 1e-9
    kept = [0, 2, 4]
    fewer = layer.delta(layer.factors()[0][:, kept], layer.B[:, :, kept])
    torch.testing.assert_close(fewer, change)


def test_no_gate_left_is_no_change() -> None:
    layer = gated(zeros=(0, 1, 2, 3, 4))
    x = torch.randn(3, 8)
    torch.testing.assert_close(layer(x), layer.base(x))


def test_after_the_task_the_update_is_in_the_weight_and_nothing_is_kept(compose: Compose) -> None:
    made = learner(compose, "trainer.lr=1e-2")
    strategy, data = codyra(made), toy_stream().test[0]
    fresh = [layer.base.weight.clone() for layer in strategy.layers]
    plain = LoRALayer.merge
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoRALayer, "merge", lambda self: None)
        made.learn(toy_stream().experience(0))
    unmerged = made.logits(data)
    for layer in strategy.layers:
        plain(layer)
    torch.testing.assert_close(made.logits(data), unmerged, rtol=0, atol=1e-5)
    for layer, weight in zip(strategy.layers, fresh, strict=True):
        assert not torch.equal(layer.base.weight, weight)
        assert layer.old_A.numel() == layer.old_B.numel() == 0
    first = [(layer.A.clone(), layer.gate.clone()) for layer in strategy.layers]
    strategy.before_experience(toy_stream().experience(1))
    torch.testing.assert_close(made.logits(data)[:, :2], unmerged, rtol=0, atol=1e-5)
    for layer, (A, gate) in zip(strategy.layers, first, strict=True):
        assert not (layer.A == A).any(), "drawn anew"
        assert not (layer.gate == gate).any()
        assert not layer.B.any()


def test_gates_shrink_in_the_second_half_of_the_steps(compose: Compose) -> None:
    made = learner(compose, "trainer.lr=0.0", reference_steps=None, threshold=0.1)
    strategy = codyra(made)
    seen: list[Tensor] = []
    made.learn(
        toy_stream().experience(0), on_step=lambda progress: seen.append(strategy.gates.clone())
    )
    start, steps = strategy.initial_gates, len(seen)
    assert steps == 6
    for step, gates in enumerate(seen):
        lost = sum(strategy.kappa(earlier, steps) for earlier in range(step + 1))
        expected = start.sign() * (start.abs() - lost).clamp(min=0)
        torch.testing.assert_close(gates, expected, rtol=0, atol=1e-6)
    assert torch.equal(seen[3], start), "dense: no threshold up to and at the middle"
    assert not torch.equal(seen[4], start)


def test_the_total_shrinkage_does_not_depend_on_the_number_of_steps(compose: Compose) -> None:
    strategy = codyra(learner(compose))
    totals = [sum(strategy.kappa(step, n) for step in range(n)) for n in (200, 500, 3000)]
    assert totals[1] == pytest.approx(0.650, abs=5e-4)
    assert totals == pytest.approx([0.65] * 3, rel=0.02)
    fixed = codyra(learner(compose, reference_steps=None))
    assert fixed.kappa(2999, 3000) == pytest.approx(0.005)


def test_half_of_sixteen_survive_as_the_initial_gates_decide(compose: Compose) -> None:
    """P(|N(0, 1)| > 0.65) = 0.516: of 16 terms with standard-normal gates 8.3 are left."""
    strategy = codyra(learner(compose, reference_steps=None))
    gates = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    for step in range(500):
        gates = strategy.shrink(gates, strategy.kappa(step, 500))
    assert 16 * gates.count_nonzero() / len(gates) == pytest.approx(8.3, abs=0.1)


def test_rank_and_correlation_are_reported(compose: Compose) -> None:
    made = learner(compose, experiences=1)
    assert 0 < float(made.logged["rank"]) < 4
    assert float(made.logged["gate_correlation"]) > 0.9


@pytest.mark.parametrize("arguments", [{"gate_init": "ones"}, {"threshold": 100.0}])
def test_a_correlation_that_does_not_exist_is_not_reported(
    compose: Compose, arguments: dict[str, Any]
) -> None:
    """All gates start at one, or none survives."""
    made = learner(compose, experiences=1, **arguments)
    assert set(made.logged) == {"rank"}
    assert float(made.logged["rank"]) == (0 if "threshold" in arguments else 4)
    assert made.logits(toy_stream().test[0]).isfinite().all()


def test_gates_are_never_decayed_and_have_their_own_rate(compose: Compose) -> None:
    made = learner(compose, gate_lr_factor=10.0)
    codyra(made).before_experience(toy_stream().experience(0))
    others, gates = made.strategy.parameter_groups()
    assert gates["weight_decay"] == 0.0
    assert gates["lr_factor"] == 10.0
    assert len(gates["params"]) == 4 * 4
    assert len(others["params"]) == 2 * 4 * 4 + 2, "A, B and the head"
    ids = {id(p) for group in (others, gates) for p in group["params"]}
    assert ids == {id(p) for p in made.model.parameters() if p.requires_grad}


def test_gates_can_start_at_one(compose: Compose) -> None:
    strategy = codyra(learner(compose, gate_init="ones"))
    strategy.before_experience(toy_stream().experience(0))
    assert torch.equal(strategy.gates, torch.ones(4 * 4 * 6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operator": "hard"}, "operator=hard"),
        ({"gate_init": "zeros"}, "gate_init=zeros"),
        ({"threshold": -1.0}, "threshold=-1.0"),
        ({"dense": 1.5}, "dense=1.5"),
        ({"levels": 1}, "levels=1"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CoDyRA(**arguments)
