"""Layers with held singular directions: the constraint, and peft's OSF as a reference."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from peft import OSFConfig, get_peft_model
from torch import Tensor, nn

from cl.errors import ConfigurationError
from cl.models import nano
from cl.models.subspace import Held, HeldBlock, HeldFactors, SubspaceLayer, inject_subspaces

KINDS: list[type[Held]] = [HeldFactors, HeldBlock]


def decomposed(
    frozen: int, kind: type[Held] = HeldFactors, rows: int = 8, columns: int = 6
) -> tuple[SubspaceLayer, Tensor]:
    """A decomposed layer and its weight before."""
    torch.manual_seed(0)
    layer = SubspaceLayer(nn.Linear(columns, rows), 1, kind)
    weight = layer.base.weight.detach().clone()
    layer.decompose([frozen])
    return layer, weight


def train(layer: SubspaceLayer, steps: int, optimiser: str = "adamw") -> None:
    """Steps on a random regression with the hooks in their order; bias held."""
    torch.manual_seed(1)
    x, y = torch.randn(32, layer.base.in_features), torch.randn(32, layer.base.out_features)
    parameters = list(layer.parts.parameters())
    kinds: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    optimise = kinds[optimiser](parameters, lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        optimise.zero_grad()
        (layer(x) - y).square().mean().backward()
        for part in layer.matrices:
            part.project_gradient()
        optimise.step()
        for part in layer.matrices:
            part.project()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(8, 6), (6, 6), (6, 8)])
@pytest.mark.parametrize("frozen", [0, 3, 6])
def test_decomposing_changes_nothing(
    kind: type[Held], rows: int, columns: int, frozen: int
) -> None:
    layer, weight = decomposed(frozen, kind, rows, columns)
    torch.testing.assert_close(layer.weight(), weight, rtol=1e-5, atol=1e-6)
    x = torch.randn(4, columns)
    torch.testing.assert_close(layer(x), layer.base(x), rtol=1e-5, atol=1e-6)


def test_nothing_held_trains_everything_and_everything_held_trains_nothing() -> None:
    layer, weight = decomposed(0)
    train(layer, 50)
    U, _, Vt = torch.linalg.svd(weight, full_matrices=False)
    change = U.T @ (layer.weight().detach() - weight) @ Vt.T
    assert (torch.linalg.svdvals(change) > 1e-3).all(), "the change has full rank"
    layer, weight = decomposed(6)
    parameters = [p for part in layer.matrices for p in part.parameters()]
    assert sum(p.numel() for p in parameters) == 0
    torch.testing.assert_close(layer.weight(), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(8, 6), (6, 6), (6, 8)])
def test_gradients_are_orthogonal_to_the_held_directions_and_not_zero(
    rows: int, columns: int
) -> None:
    layer, _ = decomposed(3, rows=rows, columns=columns)
    layer(torch.randn(16, columns)).square().sum().backward()
    (part,) = layer.matrices
    assert isinstance(part, HeldFactors)
    assert part.U.grad is not None
    assert part.V.grad is not None
    before = (part.left.T @ part.U.grad).abs().max(), (part.V.grad @ part.right).abs().max()
    assert min(before) > 1e-3
    part.project_gradient()
    assert (part.left.T @ part.U.grad).abs().max() < 1e-5
    assert (part.V.grad @ part.right).abs().max() < 1e-5
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 1e-3


@pytest.mark.parametrize(("rows", "columns"), [(8, 6), (6, 6), (6, 8)])
def test_the_constraint_holds_under_adamw(rows: int, columns: int) -> None:
    layer, weight = decomposed(3, rows=rows, columns=columns)
    (part,) = layer.matrices
    assert isinstance(part, HeldFactors)
    held = [tensor.clone() for tensor in (part.left, part.right, part.fixed)]
    train(layer, 50)
    for before, after in zip(held, (part.left, part.right, part.fixed), strict=True):
        assert torch.equal(before, after)
    assert (part.left.T @ part.U).abs().max() < 1e-5
    assert (part.V @ part.right).abs().max() < 1e-5
    s = torch.linalg.svdvals(weight)[:3].diag()
    new = layer.weight().detach()
    assert (new - weight).abs().max() > 0.05
    torch.testing.assert_close(part.left.T @ new @ part.right, s, rtol=0, atol=1e-4)
    torch.testing.assert_close(part.left.T @ new, s @ part.right.T, rtol=0, atol=1e-4)
    torch.testing.assert_close(new @ part.right, part.left @ s, rtol=0, atol=1e-4)
    x = torch.randn(5, 3) @ part.right.T  # inputs in the span of V_h
    torch.testing.assert_close(layer(x), layer.base(x), rtol=0, atol=1e-4)


def test_without_projecting_the_weights_adamw_breaks_the_constraint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HeldFactors, "project", lambda self: None)
    layer, _ = decomposed(3)
    train(layer, 200)
    (part,) = layer.matrices
    assert isinstance(part, HeldFactors)
    assert (part.left.T @ part.U).abs().max() > 0.1


def test_the_block_form_holds_only_the_common_block() -> None:
    layer, weight = decomposed(3, HeldBlock)
    train(layer, 50)
    (part,) = layer.matrices
    change = layer.weight().detach() - weight
    assert (part.left.T @ change @ part.right).abs().max() < 1e-5
    assert (part.left.T @ change).abs().max() > 1e-2
    assert (change @ part.right).abs().max() > 1e-2


def test_a_gradient_of_ones_loses_an_entry_or_a_row_and_a_column() -> None:
    """W = diag(3, 2, 1), k = 1. Of the factors a small step is taken: −ΔW / η = ∇U s V + U ∇s V + U s ∇V."""
    W, ones, rate = torch.tensor([3.0, 2, 1]).diag(), torch.ones(3, 3), 1e-4
    block, factors = HeldBlock(3, 3), HeldFactors(3, 3)
    for part in (block, factors):
        part.start(W, 1)
        part.weight().backward(ones)
        part.project_gradient()
    assert block.change.grad is not None
    torch.testing.assert_close(block.change.grad, torch.tensor([[0.0, 1, 1], [1, 1, 1], [1, 1, 1]]))
    torch.optim.SGD(factors.parameters(), lr=rate).step()
    change = (W - factors.weight().detach()) / rate
    expected = torch.tensor([[0.0, 0, 0], [0, 4 + 4 + 1, 4 + 1], [0, 4 + 1, 1 + 1 + 1]])
    torch.testing.assert_close(change, expected, rtol=0, atol=0.02)
    assert not change[0].any()
    assert not change[:, 0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_merging_keeps_the_output_and_leaves_a_plain_layer(kind: type[Held]) -> None:
    layer, weight = decomposed(3, kind)
    train(layer, 20)
    x = torch.randn(4, 6)
    trained, state = layer(x).detach(), layer.merged_state()
    layer.merge()
    torch.testing.assert_close(layer(x), trained, rtol=0, atol=1e-5)
    assert torch.equal(layer.base.weight, state["weight"])
    assert not torch.allclose(layer.base.weight, weight, atol=1e-2)
    assert sum(t.numel() for t in layer.parts.state_dict().values()) == 0
    merged = layer.base.weight.detach().clone()
    layer.decompose([4])
    torch.testing.assert_close(layer.weight(), merged, rtol=0, atol=1e-5)
    assert layer.matrices[0].left.shape == (8, 4)


def test_q_k_and_v_are_decomposed_apart() -> None:
    model = timm.create_model(nano.NANO_NAME, num_classes=0, img_size=8).eval()
    images = torch.randn(2, 3, 8, 8)
    before = model(images)
    layers = inject_subspaces(model, ["attn.qkv", "mlp.fc1"])
    fused, plain = layers[0], layers[1]
    assert (len(fused.parts), len(plain.parts)) == (3, 1)
    fused.decompose([5, 6, 7])
    q, k, v = fused.base.weight.detach().split(192)
    for part, weight, count in zip(fused.matrices, (q, k, v), (5, 6, 7), strict=True):
        values = torch.linalg.svdvals(weight)
        assert part.left.shape == (192, count)
        torch.testing.assert_close(part.left.T @ weight @ part.right, values[:count].diag())
    torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-4)


def test_a_target_that_matches_nothing_is_an_error() -> None:
    model = timm.create_model(nano.NANO_NAME, num_classes=0, img_size=8)
    with pytest.raises(ConfigurationError, match=r"attn\.proj"):
        inject_subspaces(model, ["attn.project"])


@pytest.mark.parametrize(("rows", "columns"), [(10, 6), (8, 8), (6, 10)])
def test_sgd_with_peft_osf_takes_the_same_path(rows: int, columns: int) -> None:
    """The same frozen rank and plain SGD: losses and weights agree along 100 steps."""
    torch.manual_seed(0)
    ours = SubspaceLayer(nn.Linear(columns, rows), 1)
    plain = nn.Sequential(nn.Linear(columns, rows))
    plain[0].load_state_dict(ours.base.state_dict())
    theirs = get_peft_model(plain, OSFConfig(target_modules=["0"], effective_rank=3))
    ours.decompose([3])
    x, y = torch.randn(32, columns), torch.randn(32, rows)
    mine = torch.optim.SGD(ours.parts.parameters(), lr=0.1)
    other = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], lr=0.1)
    before = ours.base.weight.detach().clone()
    for _ in range(100):
        losses = []
        for optimiser, model in ((mine, ours), (other, theirs)):
            optimiser.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            for part in ours.matrices if model is ours else ():
                part.project_gradient()
            optimiser.step()
            for part in ours.matrices if model is ours else ():
                part.project()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    merged = theirs.merge_and_unload()[0].weight.detach()
    assert (merged - before).abs().max() > 0.01
    torch.testing.assert_close(ours.weight().detach(), merged, rtol=1e-4, atol=1e-5)
