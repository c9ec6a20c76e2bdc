"""Each text's own gradient of an embedding, against one backward pass per text in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.cl.ops.per_sample_reference import Net, found, loop

IDS = torch.tensor([[5, 2, 2, 0, 0], [1, 5, 5, 5, 0], [3, 4, 1, 2, 6], [0, 0, 0, 0, 0]])
LABELS = torch.tensor([0, 1, 2, 1])


def assert_exact(model: nn.Module, ids: Tensor, slow: set[str]) -> None:
    expected = loop(model, ids, LABELS)
    gradients, fell_back = found(model, ids, LABELS)
    assert fell_back == slow
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-9, atol=1e-13, msg=name)


@pytest.mark.parametrize("padding", [None, 0, 5, -1])
@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_an_embedding_with_and_without_padding(padding: int | None, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Net(nn.Embedding(7, 4, padding_idx=padding), 4).double().eval()
    assert_exact(model, IDS.to(kind), set())


class Text(nn.Module):
    """Word and position embeddings and a norm, as encoders of text begin; positions are the same for all."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(7, 4, padding_idx=0), nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.norm(self.words(ids) + self.positions(torch.arange(ids.shape[1])))
        return y


def test_words_by_the_rule_and_positions_one_text_at_a_time() -> None:
    torch.manual_seed(0)
    assert_exact(Net(Text(), 4).double().eval(), IDS, {"inner.positions.weight"})


@pytest.mark.parametrize("option", ["scale_grad_by_freq", "tied"])
def test_what_the_rule_does_not_know_is_left_to_the_slow_way(option: str) -> None:
    """How often a word occurs in the batch, and a second use of the table as in a language model."""
    torch.manual_seed(0)
    model: nn.Module = Net(nn.Embedding(7, 4, scale_grad_by_freq=option != "tied"), 4)
    if option == "tied":
        model.head = nn.Linear(4, 7, bias=False)
        model.head.weight = model.inner.weight
    model = model.double().eval()
    if option == "tied":
        assert_exact(model, IDS, {"inner.weight"})
    else:
        assert found(model, IDS[:1], LABELS[:1])[1] == {"inner.weight"}
