"""APER's known answers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.heads import PrototypeHead
from strategies.aper import APER
from tests.conftest import Compose, toy_stream

both = pytest.mark.parametrize("adaptation", ["adapter", "finetune"])


def taught(
    compose: Compose, adaptation: str, *overrides: str, order: tuple[int, ...] = (0, 1)
) -> Learner:
    tasks = len(order) or 2
    stream = toy_stream(tasks, classes=2 * tasks)
    arguments = ["strategy=aper", f"strategy.adaptation={adaptation}", "strategy.bottleneck=4"]
    learner = Learner(compose(*arguments, *overrides), stream.info)
    for index in order:
        learner.learn(stream.experience(index))
    return learner


@both
def test_without_training_it_is_simplecil(compose: Compose, adaptation: str) -> None:
    """Two equal branches give the cosine of one."""
    stream = toy_stream()
    plain = Learner(compose("strategy=simplecil"), stream.info)
    for index in range(2):
        plain.learn(stream.experience(index))
    logits = taught(compose, adaptation, "trainer.lr=0.0").logits(stream.test[1])
    torch.testing.assert_close(logits, plain.logits(stream.test[1]), rtol=1e-5, atol=1e-5)


@both
def test_after_the_first_experience_only_prototypes_change(
    compose: Compose, adaptation: str
) -> None:
    stream, learner = toy_stream(), taught(compose, adaptation, "trainer.lr=0.1", order=())
    start = {n: t.clone() for n, t in learner.model.backbone.state_dict().items()}
    assert learner.learn(stream.experience(0)) > 0
    assert learner.trainable_parameters > 0
    adapted = {n: t.clone() for n, t in learner.state.state_dict().items()}
    changed = {n for n, t in start.items() if not torch.equal(adapted[f"model.backbone.{n}"], t)}
    assert changed
    if adaptation == "adapter":
        assert all(".adapter." in name for name in changed), "the backbone keeps its bits"
    assert learner.learn(stream.experience(1)) == 0
    assert learner.trainable_parameters == 0
    for name, tensor in learner.state.state_dict().items():
        if name.startswith("model.head."):
            assert torch.equal(tensor[:2], adapted[name][:2])
        elif name != "strategy.class_mask":
            assert torch.equal(tensor, adapted[name]), name
    assert isinstance(learner.model.head, PrototypeHead)


@both
def test_the_score_is_one_cosine_of_both_branches(compose: Compose, adaptation: str) -> None:
    learner, stream = taught(compose, adaptation, "trainer.lr=0.1"), toy_stream()
    naive = Learner(compose("strategy=naive"), stream.info)
    strategy, head = learner.strategy, learner.model.head
    assert isinstance(strategy, APER)
    assert isinstance(head, PrototypeHead)
    batch = next(strategy.batches(stream.experience(1)))
    with torch.no_grad():
        features = strategy.features(batch.images)
        torch.testing.assert_close(features[:, :192], naive.model.backbone(batch.images))
        torch.testing.assert_close(features[:, 192:], learner.model.backbone(batch.images))
        assert not torch.allclose(features[:, :192], features[:, 192:], atol=1e-3)
        expected = features[batch.labels == 3].mean(0)
        torch.testing.assert_close((head.sums[3] / head.counts[3]).float(), expected)
        prototypes = (head.sums / head.counts[:, None]).float()
        cosines = F.cosine_similarity(features[:, None], prototypes[None], dim=2)
        torch.testing.assert_close(strategy.predict(batch.images), cosines)


def test_the_order_of_the_later_tasks_does_not_matter(compose: Compose) -> None:
    """The labels say which class is which; the stream of 4 tasks is learnt as 0, 1, 2, 3 and 0, 3, 2, 1."""
    stream = toy_stream(tasks=4, classes=8)
    one, other = (
        taught(compose, "adapter", "trainer.lr=0.1", order=order)
        for order in ((0, 1, 2, 3), (0, 3, 2, 1))
    )
    assert isinstance(one.strategy, APER)
    batch = next(one.strategy.batches(stream.experience(1)))
    with torch.no_grad():
        bare, adapted = one.strategy.features(batch.images).chunk(2, dim=1)
    assert (adapted - bare).abs().max() > 1e-3, "the adapters were trained"
    for test in stream.test:
        torch.testing.assert_close(one.logits(test), other.logits(test))


def test_finetuning_takes_any_backbone(compose: Compose) -> None:
    cfg = compose(
        "strategy=aper", "strategy.adaptation=finetune", "backbone=resnet18",
        "backbone.image_size=32", "backbone.pretrained=false",
    )  # fmt: skip
    learner = Learner(cfg, toy_stream().info)
    learner.learn(toy_stream().experience(0))
    assert learner.logits(toy_stream().test[0]).shape == (12, 2)


def test_values_out_of_range() -> None:
    with pytest.raises(ConfigurationError, match="adaptation=ssf"):
        APER("ssf")
