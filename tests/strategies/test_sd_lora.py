"""SD-LoRA: directions are fixed, magnitudes are trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.lora import ScaledLoRALayer
from strategies.sd_lora import SDLoRA, inner_products
from tests.conftest import Compose, toy_stream


def learner(
    compose: Compose,
    experiences: int = 1,
    tasks: int = 2,
    lr: float = 1e-2,
    epochs: int = 2,
    **arguments: Any,
) -> Learner:
    cfg = compose("strategy=sd_lora", f"trainer.lr={lr}", f"trainer.epochs={epochs}")
    cfg.strategy.update({"rank": 3, **arguments})
    stream = toy_stream(tasks, classes=2 * tasks)
    made = Learner(cfg, stream.info)
    for index in range(experiences):
        made.learn(stream.experience(index))
    return made


def sd_lora(made: Learner) -> SDLoRA:
    assert isinstance(made.strategy, SDLoRA)
    return made.strategy


def layer_with_tasks(product: bool = False) -> tuple[ScaledLoRALayer, list[tuple[Tensor, Tensor]]]:
    """A layer after three tasks of rank 2 on two blocks; returns each task's factors."""
    torch.manual_seed(0)
    blocks = [slice(0, 5), slice(5, 10)]
    layer = ScaledLoRALayer(nn.Linear(5, 10), 2, 2.0, blocks=blocks)
    layer.share(nn.Parameter(torch.tensor([0.3, -0.6, 0.9])))
    factors = []
    for task in range(3):
        layer.reset(torch.Generator().manual_seed(task))
        layer.B.data.normal_()
        factors.append((layer.A.detach().clone(), layer.B.detach().clone()))
        if task < 2:
            layer.keep_direction(task, product)
    return layer, factors


@pytest.mark.parametrize("product", [False, True])
def test_forward_is_the_formula(product: bool) -> None:
    layer, factors = layer_with_tasks(product)
    x = torch.randn(4, 5)
    expected = layer.base(x)
    for task, (A, B) in enumerate(factors):
        for block, a, b in zip(layer.blocks, A, B, strict=True):
            norm = (b @ a).norm() if product else a.norm() * b.norm()
            change = b @ a / (norm if task < 2 else 1.0)
            expected[:, block] += layer.magnitudes[task] * (x @ change.T)
    torch.testing.assert_close(layer(x), expected)
    plain = nn.Linear(5, 10)
    plain.load_state_dict(layer.merged_state())
    torch.testing.assert_close(plain(x), expected)


def test_a_direction_is_at_most_one_long_or_exactly_one() -> None:
    for product in (False, True):
        layer, _ = layer_with_tasks(product)
        for task in range(2):
            columns = layer.old_task == task
            lengths = (layer.old_B[:, :, columns] @ layer.old_A[:, columns]).flatten(1).norm(dim=1)
            if product:
                torch.testing.assert_close(lengths, torch.ones(2))
            else:
                assert (lengths < 1).all()
                assert (lengths > 0.3).all()


def test_a_direction_does_not_depend_on_the_scale_of_the_factors() -> None:
    kept = []
    for scale in (1.0, 100.0):
        torch.manual_seed(0)
        layer = ScaledLoRALayer(nn.Linear(5, 4), 2, 2.0)
        layer.A.data = torch.randn(1, 2, 5) * scale
        layer.B.data = torch.randn(1, 4, 2) / scale
        layer.keep_direction(0)
        kept.append(layer.old_B @ layer.old_A)
    torch.testing.assert_close(kept[0], kept[1])


def test_no_magnitude_is_the_frozen_model() -> None:
    layer, _ = layer_with_tasks()
    layer.magnitudes.data.zero_()
    x = torch.randn(4, 5)
    torch.testing.assert_close(layer(x), layer.base(x))


def test_a_task_that_learned_nothing_has_no_direction() -> None:
    layer = ScaledLoRALayer(nn.Linear(5, 4), 2, 2.0)
    layer.share(nn.Parameter(torch.ones(2)))
    layer.reset(torch.Generator().manual_seed(0))
    layer.keep_direction(0)
    x = torch.randn(4, 5)
    assert torch.equal(layer(x), layer.base(x))


def test_the_first_task_is_lora_with_the_starting_magnitude(compose: Compose) -> None:
    made = learner(compose, experiences=0)
    sd_lora(made).before_experience(toy_stream().experience(0))
    assert made.model.magnitudes.tolist() == pytest.approx([0.8])
    layer = sd_lora(made).layers[0]
    layer.B.data.normal_()
    x = torch.randn(2, 192)
    expected = layer.base(x)
    for block, A, B in zip(layer.blocks, layer.A, layer.B, strict=True):
        expected[:, block] += 0.8 * x @ A.T @ B.T
    torch.testing.assert_close(layer(x), expected)


def test_old_directions_stay_bit_for_bit_and_old_magnitudes_move(compose: Compose) -> None:
    made, again = (learner(compose, 2, 4, lr=0.05, epochs=6) for _ in range(2))
    stream = toy_stream(4, classes=8)
    sd_lora(again).before_experience(stream.experience(2))  # the directions as the task begins
    made.learn(stream.experience(2))
    for start, layer in zip(sd_lora(again).layers, sd_lora(made).layers, strict=True):
        assert torch.equal(layer.old_A, start.old_A)
        assert torch.equal(layer.old_B, start.old_B)
        assert layer.old_B.abs().max() > 0
        assert layer.old_task.tolist() == [0, 0, 0, 1, 1, 1]
    magnitudes = made.model.magnitudes.detach()
    assert len(magnitudes) == 3, "one number per task for the whole network"
    assert (magnitudes - 0.8).abs().min() > 1e-6
    assert float(made.logged["magnitude_2"]) == pytest.approx(magnitudes[2].item())


def test_magnitudes_directions_and_head_are_what_is_trained(compose: Compose) -> None:
    made = learner(compose, experiences=2)
    names = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in names} == {"A", "B", "magnitudes", "weight", "bias"}
    factors = sum(layer.A.numel() + layer.B.numel() for layer in sd_lora(made).layers)
    assert factors == 4 * 2 * 2 * 3 * 192
    assert made.trainable_parameters == factors + 2 + 4 * 193


def test_the_magnitudes_are_one_and_the_same_after_loading(compose: Compose, tmp_path: Any) -> None:
    made = learner(compose, experiences=2)
    made.save(tmp_path / "saved")
    opened = Learner.load(tmp_path / "saved")
    for layer in sd_lora(opened).layers:
        assert layer.magnitudes is opened.model.magnitudes
    torch.testing.assert_close(opened.model.magnitudes, made.model.magnitudes)


def test_the_rank_can_fall_with_the_tasks(compose: Compose) -> None:
    made = learner(compose, experiences=4, tasks=4, reduced_ranks={1: 2, 3: 1})
    layer = sd_lora(made).layers[0]
    assert layer.old_task.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert layer.A.shape[1] == layer.B.shape[2] == 1


def repeat_the_first_direction(made: Learner, noise: float = 0.0) -> None:
    """Make B A of the current task twice the first direction, in every layer."""
    for layer in sd_lora(made).layers:
        layer.A.data.copy_(layer.old_A[:, :3])
        layer.B.data.copy_(2 * layer.old_B[:, :, :3])
        layer.B.data += noise * torch.randn(layer.B.shape) * layer.B.abs().mean()


@pytest.mark.parametrize("norm", ["factors", "product"])
def test_a_direction_that_repeats_old_ones_is_distilled_into_their_magnitudes(
    compose: Compose, norm: str
) -> None:
    stream = toy_stream(4, classes=8)
    made = learner(compose, 3, 4, distil=1e-3, norm=norm)
    strategy = sd_lora(made)
    assert len(made.model.magnitudes) == 3, "what the tasks learned is not dependent"
    repeat_the_first_direction(made)
    made.model.magnitudes.data = torch.tensor([0.5, -0.4, 0.7])
    before = made.logits(stream.test[0])
    strategy.after_experience(stream.experience(2))
    torch.testing.assert_close(made.model.magnitudes.data, torch.tensor([0.5 + 2 * 0.7, -0.4, 0.0]))
    torch.testing.assert_close(made.logits(stream.test[0]), before, rtol=0, atol=1e-5)
    made.learn(stream.experience(3))
    assert strategy.layers[0].old_task.tolist() == [0, 0, 0, 1, 1, 1], "it is not kept"
    assert len(made.model.magnitudes) == 3


@pytest.mark.parametrize(("distil", "dropped"), [(0.0, False), (0.01, False), (0.5, True)])
def test_the_residual_decides_what_is_distilled(
    compose: Compose, distil: float, dropped: bool
) -> None:
    made = learner(compose, 2, distil=distil)
    made.model.magnitudes.data.fill_(0.8)
    repeat_the_first_direction(made, noise=0.1)
    sd_lora(made).after_experience(toy_stream().experience(1))
    assert (made.model.magnitudes[-1].item() == 0) == dropped


def test_the_inner_products_are_those_of_the_matrices() -> None:
    layer, _ = layer_with_tasks()
    changes = [
        layer.old_B[:, :, layer.old_task == task] @ layer.old_A[:, layer.old_task == task]
        for task in range(2)
    ]
    matrices = torch.stack([*changes, layer.B @ layer.A]).flatten(1).double()
    torch.testing.assert_close(inner_products(layer, 2), matrices @ matrices.T)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distil": 1.0}, "distil=1.0"),
        ({"norm": "l1"}, "norm=l1"),
        ({"reduced_ranks": {3: 0}}, "reduced_ranks: 3: 0"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SDLoRA(**arguments)
