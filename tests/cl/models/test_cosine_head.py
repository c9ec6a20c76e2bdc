from __future__ import annotations

import torch
from torch.nn import functional as F

from cl.models.heads import CosineHead


def head(classes: int = 3) -> CosineHead:
    made = CosineHead(8)
    made.grow(classes, torch.Generator().manual_seed(0))
    return made


def test_it_is_the_scaled_cosine() -> None:
    made, features = head(), torch.randn(4, 8)
    made.scale.data.fill_(3.0)
    expected = 3 * F.cosine_similarity(features[:, None], made.weight[None], dim=2)
    torch.testing.assert_close(made(features), expected)
    torch.testing.assert_close(made(5 * features), expected)


def test_growing_keeps_the_old_rows_and_draws_small_new_ones() -> None:
    made = head()
    old = made.weight.detach().clone()
    made.grow(5, torch.Generator().manual_seed(1))
    assert made.classes == 5
    assert torch.equal(made.weight[:3], old)
    assert made.weight.abs().max() <= 8**-0.5
    assert made.weight[3:].abs().min() > 0
    made.grow(2, torch.Generator())
    assert made.classes == 5


def test_the_linear_layer_ranks_the_classes_alike() -> None:
    made, features = head(), torch.randn(20, 8)
    state = made.linear_state()
    linear = F.linear(features, state["weight"], state["bias"])
    assert torch.equal(linear.argsort(1), made(features).argsort(1))
