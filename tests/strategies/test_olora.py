"""O-LoRA's known answers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.lora import lora_layers
from strategies.olora import OLoRA
from tests.conftest import Compose, toy_stream


def learner(compose: Compose, *overrides: str, experiences: int = 1, tasks: int = 2) -> Learner:
    stream = toy_stream(tasks, classes=2 * tasks)
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
    first = next(lora_layers(strategy.run.model))
    (gradient,) = torch.autograd.grad(penalty, first.A)
    assert gradient[0, 0, 0].item() == pytest.approx(slope)
    assert not gradient[0, 0, 1:].any()


def test_the_first_task_has_no_penalty(compose: Compose) -> None:
    made = learner(compose, experiences=0)
    made.strategy.before_experience(toy_stream().experience(0))
    assert float(made.strategy.penalty()) == 0.0


def test_the_loss_of_the_first_task_is_that_of_plain_lora(compose: Compose) -> None:
    """The model written out: W + s B A in the q and v rows, and the cross-entropy of that."""
    made = learner(compose, experiences=0)
    experience = toy_stream().experience(0)
    made.strategy.before_experience(experience)
    layers, generator = list(lora_layers(made.model)), torch.Generator().manual_seed(0)
    for layer in layers:
        layer.B.data.copy_(0.1 * torch.randn(layer.B.shape, generator=generator))
    made.model.eval()  # no dropout
    batch = next(made.strategy.batches(experience))
    loss = made.strategy.loss(batch)
    for layer in layers:
        for block, A, B in zip(layer.blocks, layer.A, layer.B, strict=True):
            layer.base.weight.data[block] += 32 / 2 * (B @ A).detach()
        layer.B.data.zero_()
    expected = F.cross_entropy(made.model(batch.images), batch.labels)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merge", [False, True])
def test_a_task_finds_the_rows_of_all_earlier_ones(compose: Compose, merge: bool) -> None:
    made, stream = learner(compose, f"strategy.merge={merge}", tasks=3), toy_stream(3, 6)
    for index in (1, 2):
        for layer in lora_layers(made.model):
            assert layer.old_A.shape == (2, index * 2, 192), "(t − 1) r"
            assert layer.old_B.shape == (2, 192, 0 if merge else index * 2)
        made.learn(stream.experience(index))
    assert all(layer.old_A.shape[1] == 3 * 2 for layer in lora_layers(made.model))


def test_norm_decay_is_the_sum_of_the_frobenius_norms_of_all_matrices(compose: Compose) -> None:
    """q and v are matrices of their own: of 2 × 192 entries each, in four layers."""
    made = learner(compose, "strategy.decay=3.0", "strategy.orthogonality=0.0")
    for layer in lora_layers(made.model):
        layer.A.data.fill_(1.0)
        layer.B.data.fill_(2.0)
    expected = 3.0 * 4 * 2 * (1 + 2) * (2 * 192) ** 0.5
    assert float(made.strategy.penalty()) == pytest.approx(expected, rel=1e-5)


def test_a_task_with_norm_decay_can_begin_at_zero(compose: Compose) -> None:
    made = learner(compose, "strategy.decay=0.1")
    assert all(layer.A.isfinite().all() for layer in lora_layers(made.model))


def test_the_penalty_can_be_divided_by_the_number_of_matrices(compose: Compose) -> None:
    """Four layers with q and v are eight; the norms are not divided."""
    decay = "strategy.decay=1.0"
    plain, divided = (
        one_layer(compose, decay, "strategy.orthogonality=1.0", f"strategy.normalise={on}")
        for on in (False, True)
    )
    for strategy in (plain, divided):
        for layer in lora_layers(strategy.run.model):
            layer.B.data.zero_()
    length = (0.7**2 + 0.4**2) ** 0.5
    assert plain.penalty().item() == pytest.approx(0.7 + length)
    assert divided.penalty().item() == pytest.approx(0.7 / 8 + length)
    assert divided.run.logged["orthogonality"].item() == pytest.approx(0.7 / 8)


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
        penalties.append(float(made.strategy.penalty()))
        changes.append((made.logits(data)[:, :2] - before).abs().max())
        bound = 192**-0.5
        rms = torch.stack([layer.A.detach().square().mean() for layer in layers]).mean().sqrt()
        assert float(rms) == pytest.approx(bound / 3**0.5, rel=0.02), "Kaiming's variance"
    assert penalties[0] > 0.1
    assert penalties[1] < 1e-6
    assert max(changes) < 1e-5


def test_more_rows_than_a_layer_has_inputs(compose: Compose) -> None:
    """The layers are 192 wide. The stream says how many tasks there are; a learner may go on after it."""
    with pytest.raises(ConfigurationError, match=r"need 194 .* 192\. Use a lower rank"):
        learner(compose, "strategy.init=null_space", "strategy.rank=97")  # in the first task
    with pytest.warns(UserWarning, match=r"need 194 .* cannot be orthogonal"):
        learner(compose, "strategy.rank=97")
    made = learner(compose, "strategy.init=null_space", "strategy.rank=96", experiences=2)
    third = dataclasses.replace(toy_stream().experience(1), index=2)
    with pytest.raises(ConfigurationError, match="3 tasks of that rank need 288"):
        made.learn(third)


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
