"""O-LoRA's known answers."""

from __future__ import annotations

import pytest
import torch

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.lora import lora_layers
from strategies.olora import OLoRA
from tests.conftest import Compose, toy_stream


def learner(compose: Compose, *overrides: str, experiences: int = 1) -> Learner:
    stream = toy_stream()
    made = Learner(compose("strategy=olora", "strategy.rank=2", *overrides), stream.info)
    for index in range(experiences):
        made.learn(stream.experience(index))
    return made


def one_layer(compose: Compose, *overrides: str) -> OLoRA:
    """A strategy whose only penalised layer has A_old = [[1, 0, 0 …]] and A = [[a, b, 0 …]]."""
    made = learner(compose, *overrides)
    first, *others = lora_layers(made.model)
    for layer in (first, *others):
        layer.old_A.zero_()
        layer.A.data.zero_()
    first.old_A[0, 0, 0] = 1.0
    first.A.data[0, 0, :2] = torch.tensor([-0.7, 0.4])
    assert isinstance(made.strategy, OLoRA)
    return made.strategy


@pytest.mark.parametrize(
    ("norm", "expected", "slope"), [("l1", 0.7, -1.0), ("squared", 0.49, -1.4)]
)
def test_penalty_of_a_hand_made_case(
    compose: Compose, norm: str, expected: float, slope: float
) -> None:
    strategy = one_layer(compose, f"strategy.norm={norm}", "strategy.orthogonality=1.0")
    penalty = strategy.penalty()
    assert penalty.item() == pytest.approx(expected)
    first = next(lora_layers(strategy.model))
    (gradient,) = torch.autograd.grad(penalty, first.A)
    assert gradient[0, 0, 0].item() == pytest.approx(slope)
    assert not gradient[0, 0, 1:].any()


def test_the_first_task_has_no_penalty(compose: Compose) -> None:
    made = learner(compose, experiences=0)
    made.strategy.before_experience(toy_stream().experience(0))
    assert float(made.strategy.penalty()) == 0.0


def test_norm_decay_is_the_sum_of_frobenius_norms(compose: Compose) -> None:
    made = learner(compose, "strategy.decay=2.0", "strategy.orthogonality=0.0")
    layers = list(lora_layers(made.model))
    for layer in layers:
        layer.A.data.fill_(1.0)
        layer.B.data.fill_(2.0)
    expected = sum(2.0 * (layer.A.numel() ** 0.5 + 2 * layer.B.numel() ** 0.5) for layer in layers)
    assert float(made.strategy.penalty()) == pytest.approx(expected, rel=1e-5)


def test_gradient_descent_on_the_penalty_makes_the_subspaces_orthogonal(compose: Compose) -> None:
    made = learner(compose, "strategy.orthogonality=1.0")
    made.strategy.before_experience(toy_stream().experience(1))
    parameters = [layer.A for layer in lora_layers(made.model)]
    optimiser = torch.optim.SGD(parameters, lr=1e-3)
    first = float(made.strategy.penalty())
    for step in range(600):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 600)
        optimiser.zero_grad()
        made.strategy.penalty().backward()
        optimiser.step()
    assert first > 0.1
    assert float(made.strategy.penalty()) < 1e-3


def test_old_factors_stay_bit_for_bit_while_the_next_task_trains(compose: Compose) -> None:
    made = learner(compose)
    kept = [(layer.old_A.clone(), layer.old_B.clone()) for layer in lora_layers(made.model)]
    made.learn(toy_stream().experience(1))
    for (A, B), layer in zip(kept, lora_layers(made.model), strict=True):
        assert layer.old_A.shape[1] == 4, "rank × tasks"
        assert torch.equal(layer.old_A[:, :2], A)
        assert torch.equal(layer.old_B[:, :, :2], B)


def test_merged_and_unmerged_are_the_same_function(compose: Compose) -> None:
    data = toy_stream().test[1]
    kept = learner(compose, "strategy.merge=false", experiences=2)
    merged = learner(compose, "strategy.merge=true", experiences=2)
    torch.testing.assert_close(merged.logits(data), kept.logits(data), rtol=1e-3, atol=1e-4)
    assert merged.stored_numbers < kept.stored_numbers
    factors = sum(layer.old_B.numel() for layer in lora_layers(kept.model))
    assert kept.stored_numbers - merged.stored_numbers == factors


def test_penalty_and_overlap_are_reported(compose: Compose) -> None:
    reports: list[dict[str, float]] = []
    made = learner(compose)
    made.learn(
        toy_stream().experience(1),
        on_step=lambda progress: reports.append({k: float(v) for k, v in made.logged.items()}),
    )
    assert reports[0]["orthogonality"] > 0
    assert 0 < float(made.logged["overlap"]) < 1


def test_only_adapters_and_head_are_trained(compose: Compose) -> None:
    made = learner(compose)
    trained = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == {"A", "B", "weight", "bias"}
    assert {name for name in trained if name.startswith("head")} == {"head.weight", "head.bias"}
    assert all(name.startswith("head") or name.endswith((".A", ".B")) for name in trained)


def test_a_task_can_start_in_the_null_space_of_the_earlier_ones(compose: Compose) -> None:
    penalties, changes = [], []
    for init in ("kaiming", "null_space"):
        made = learner(compose, f"strategy.init={init}", "strategy.orthogonality=1.0")
        data = toy_stream().test[0]
        before = made.logits(data)
        made.strategy.before_experience(toy_stream().experience(1))
        layers = list(lora_layers(made.model))
        products = [layer.old_A.double() @ layer.A.detach().double().mT for layer in layers]
        penalties.append(max(float(product.abs().sum()) for product in products))
        changes.append((made.logits(data)[:, :2] - before).abs().max())
        bound = 192**-0.5
        rms = torch.stack([layer.A.detach().square().mean() for layer in layers]).mean().sqrt()
        assert float(rms) == pytest.approx(bound / 3**0.5, rel=0.02), "Kaiming's variance"
    assert penalties[0] > 0.1
    assert penalties[1] < 1e-6
    assert max(changes) < 1e-5


def test_a_full_layer_has_no_null_space(compose: Compose) -> None:
    made = learner(compose, "strategy.init=null_space", "strategy.rank=192")
    with pytest.raises(ConfigurationError, match="1 tasks of rank 192"):
        made.strategy.before_experience(toy_stream().experience(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "zeros"}, "init=zeros"),
        ({"norm": "l3"}, "norm=l3"),
        ({"orthogonality": -1.0}, "negative"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_values_out_of_range(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        OLoRA(**arguments)  # type: ignore[arg-type]
