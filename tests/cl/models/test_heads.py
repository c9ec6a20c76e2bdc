from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from sklearn.neighbors import NearestCentroid
from torch import nn

from cl.learner import Learner
from cl.models import nano
from cl.models.heads import LinearHead, PrototypeHead
from cl.models.model import Model
from cl.strategy import Strategy
from cl.stream import StreamInfo
from tests.conftest import Compose, toy_stream


def test_growing_leaves_old_rows_bit_for_bit() -> None:
    head = LinearHead(5)
    head.grow(2, torch.Generator().manual_seed(0))
    head.weight.data.normal_()
    head.bias.data.normal_()
    weight, bias = head.weight.data.clone(), head.bias.data.clone()
    head.grow(4, torch.Generator().manual_seed(1))
    assert torch.equal(head.weight[:2], weight)
    assert torch.equal(head.bias[:2], bias)
    assert head(torch.randn(3, 5)).shape == (3, 4)
    assert not head(torch.randn(3, 5))[:, 2:].any(), "a new class begins with the logit 0"
    assert head.weight.requires_grad
    before = head.weight
    head.grow(4, torch.Generator())
    assert head.weight is before, "nothing to grow, nothing replaced"


def filled(features: torch.Tensor, labels: torch.Tensor, classes: int) -> PrototypeHead:
    head = PrototypeHead(features.shape[1])
    head.grow(classes)
    for some, targets in zip(features.split(3), labels.split(3), strict=True):
        head.update(some, targets)
    return head


def test_prototypes_are_the_nearest_centroid_classifier() -> None:
    """On features of unit length, nearest by cosine to unit prototypes is nearest by distance."""
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 8, generator=generator), torch.arange(60) % 4
    head = filled(features, labels, 4)
    centroids = torch.stack([features[labels == c].mean(0) for c in range(4)])
    torch.testing.assert_close(
        (head.sums / head.counts[:, None]).float(), centroids, rtol=1e-6, atol=1e-6
    )
    reference = NearestCentroid()
    unit = torch.nn.functional.normalize(centroids, dim=1).numpy()
    reference.fit(unit, np.arange(4))
    test = torch.nn.functional.normalize(torch.randn(200, 8, generator=generator), dim=1)
    assert np.array_equal(head(test).argmax(1).numpy(), reference.predict(test.numpy()))


def test_two_orthogonal_classes() -> None:
    head = filled(torch.eye(2), torch.arange(2), 2)
    torch.testing.assert_close(head(torch.eye(2)), torch.eye(2))


def test_scale_of_the_features_does_not_matter() -> None:
    features, labels = torch.randn(30, 6), torch.arange(30) % 3
    test = torch.randn(10, 6)
    plain, scaled = filled(features, labels, 3), filled(7 * features, labels, 3)
    torch.testing.assert_close(plain(test), scaled(0.1 * test))


def test_a_class_without_images_is_never_the_answer() -> None:
    head = filled(-torch.eye(2), torch.arange(2), 3)
    logits = head(torch.eye(2))
    assert (logits[:, 2] == -torch.inf).all(), "its zero prototype would beat negative similarities"
    assert logits.argmax(1).max() < 2


@pytest.mark.parametrize("kind", ["linear", "prototypes"])
def test_linear_state_ranks_the_classes_alike(kind: str) -> None:
    features = torch.randn(12, 6)
    if kind == "linear":
        head: LinearHead | PrototypeHead = LinearHead(6)
        head.grow(3, torch.Generator())
    else:
        head = filled(torch.randn(30, 6), torch.arange(30) % 3, 3)
    state = head.linear_state()
    logits = torch.nn.functional.linear(features, state["weight"], state["bias"])
    assert torch.equal(logits.argsort(1), head(features).argsort(1))


class Distances(nn.Module):
    """A head of nobody's family: minus the squared distance to a trained centre of each class."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(0, features))

    @property
    def classes(self) -> int:
        return len(self.centres)

    def grow(self, classes: int, generator: torch.Generator) -> None:
        new = torch.randn(classes - self.classes, self.centres.shape[1], generator=generator)
        self.centres = nn.Parameter(torch.cat([self.centres.data, new]))

    def linear_state(self) -> dict[str, torch.Tensor]:
        centres = self.centres.detach()
        return {"weight": 2 * centres, "bias": -centres.square().sum(1)}

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return -(features[:, None] - self.centres).square().sum(2)


class OwnHead(Strategy):
    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.head = Distances(model.features)


def test_a_head_of_ones_own_learns_and_is_exported(compose: Compose, tmp_path: Path) -> None:
    target = "+strategy._target_=tests.cl.models.test_heads.OwnHead"
    stream = toy_stream()
    learner = Learner(compose("strategy=custom", target), stream.info)
    for index in range(2):
        learner.learn(stream.experience(index))
    assert learner.model.head.classes == 4
    learner.export(tmp_path / "plain.safetensors")
    plain = timm.create_model(nano.NANO_NAME, num_classes=4, img_size=8).eval()
    plain.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    with torch.inference_mode():
        for batch, logits in learner.answers(stream.test[0]):
            assert torch.equal(plain(batch.images).argmax(1), logits.argmax(1))
