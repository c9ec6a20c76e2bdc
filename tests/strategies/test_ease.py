"""EASE's known answers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.adapters import Adapter, adapters_of
from cl.models.heads import CosineHead, LinearHead
from strategies.ease import EASE
from tests.conftest import Compose, toy_stream


def taught(compose: Compose, *overrides: str, experiences: int = 2, tasks: int = 2) -> Learner:
    stream = toy_stream(tasks, classes=2 * tasks)
    cfg = compose("strategy=ease", "strategy.bottleneck=4", "trainer.lr=0.1", *overrides)
    learner = Learner(cfg, stream.info)
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


def method(learner: Learner) -> EASE:
    assert isinstance(learner.strategy, EASE)
    return learner.strategy


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("bare", [0.0, 0.7])
def test_the_score_is_the_formula(compose: Compose, average: bool, bare: float) -> None:
    arguments = ("strategy.others=0.4", f"strategy.average={average}", f"strategy.bare={bare}")
    strategy = method(taught(compose, *arguments, experiences=4, tasks=4))
    batch = next(strategy.batches(toy_stream(4, classes=8).experience(1)))
    with torch.no_grad():
        features = strategy.features(batch.images)
        logits = strategy.predict(batch.images)
    for k in range(1, len(features)):
        assert (features[k] - features[k - 1]).abs().max() > 1e-3, "each subspace is another"
    W = strategy.prototypes
    for c, own in enumerate(strategy.tasks.tolist()):
        expected = torch.zeros(len(batch.labels))
        for k in range(4):
            weight = 1.0 if k == own else (0.4 / 3 if average else 0.4)
            expected += weight * F.cosine_similarity(features[k], W[c, k][None])
        if bare:
            expected += bare * F.cosine_similarity(features[4], strategy.bare_prototypes[c][None])
        torch.testing.assert_close(logits[:, c], expected)


def test_prototypes_of_new_classes_are_means_in_all_subspaces(compose: Compose) -> None:
    strategy, stream = method(taught(compose)), toy_stream()
    batch = next(strategy.batches(stream.experience(1)))
    with torch.no_grad():
        features = strategy.features(batch.images)
    for label in (2, 3):
        expected = features[:, batch.labels == label].mean(1)
        torch.testing.assert_close(strategy.prototypes[label], expected)


def test_untrained_adapters_leave_simplecils_prototypes_in_every_subspace(compose: Compose) -> None:
    stream = toy_stream()
    plain = Learner(compose("strategy=simplecil"), stream.info)
    strategy = method(taught(compose, "trainer.lr=0.0", "strategy.bare=1.0"))
    for index in range(2):
        plain.learn(stream.experience(index))
    head = plain.model.head
    expected = (head.sums / head.counts[:, None]).float()
    measured = [strategy.prototypes[:, 0], strategy.prototypes[2:, 1], strategy.bare_prototypes]
    for found, wanted in zip(measured, (expected, expected[2:], expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_one_task_is_a_prototype_classifier_on_its_adapter(compose: Compose) -> None:
    learner = taught(compose, experiences=1)
    strategy = method(learner)
    batch = next(strategy.batches(toy_stream().experience(0)))
    with torch.no_grad():
        features = learner.model.backbone(batch.images)
        means = torch.stack([features[batch.labels == label].mean(0) for label in (0, 1)])
        expected = F.cosine_similarity(features[:, None], means[None], dim=2)
        torch.testing.assert_close(strategy.predict(batch.images), expected)


def test_without_the_others_only_the_own_subspace_counts(compose: Compose) -> None:
    learner = taught(compose, "strategy.others=0.0")
    before = learner.logits(toy_stream().test[0])
    strategy = method(learner)
    strategy.prototypes[:2, 1] = torch.randn(2, 192)
    strategy.prototypes[2:, 0] = torch.randn(2, 192)
    torch.testing.assert_close(learner.logits(toy_stream().test[0]), before)


def test_old_adapters_and_the_backbone_keep_their_bits(compose: Compose) -> None:
    stream, learner = toy_stream(), taught(compose, experiences=1)
    backbone = {
        n: p.clone() for n, p in learner.model.backbone.named_parameters() if "adapter" not in n
    }
    adapters = adapters_of(learner.model)
    kept = [{name: adapter.kept(name).clone() for name in Adapter.TENSORS} for adapter in adapters]
    learner.learn(stream.experience(1))
    for old, adapter in zip(kept, adapters, strict=True):
        assert adapter.slots == 2
        for name in Adapter.TENSORS:
            assert torch.equal(adapter.kept(name)[:1], old[name]), name
            assert not torch.equal(adapter.kept(name)[1:], old[name]), name
    for name, tensor in backbone.items():
        assert torch.equal(learner.model.backbone.get_parameter(name), tensor)


def test_the_proxy_is_a_cosine_classifier_anew_for_every_task(compose: Compose) -> None:
    strategy = method(taught(compose, experiences=1))
    trained = strategy.run.model.head
    assert isinstance(trained, CosineHead)
    assert trained.scale != 1
    strategy.before_experience(toy_stream().experience(1))
    assert isinstance(strategy.run.model.head, CosineHead)
    assert strategy.run.model.head.scale == 1
    linear = method(taught(compose, "strategy.proxy=linear", experiences=1))
    assert isinstance(linear.run.model.head, LinearHead)


@pytest.mark.parametrize("proxy", ["cosine", "linear"])
def test_either_proxy_learns(compose: Compose, proxy: str) -> None:
    arguments = (f"strategy.proxy={proxy}", "backbone.pretrained=true", "trainer.epochs=8")
    learner, stream, losses = taught(compose, *arguments, experiences=0), toy_stream(), []
    learner.learn(stream.experience(0), on_step=lambda progress: losses.append(progress.loss))
    assert losses[-1] < 0.9 * losses[0]
    answers = learner.logits(stream.test[0]).argmax(1)
    assert (answers.numpy() == stream.test[0].targets).all()


def test_a_stream_that_repeats_classes_is_refused(compose: Compose) -> None:
    learner = taught(compose, experiences=1)
    again = dataclasses.replace(toy_stream().experience(0), index=1, new_classes=())
    with pytest.raises(ConfigurationError, match="class-incremental"):
        learner.learn(again)


@pytest.mark.parametrize("argument", ["others", "bare"])
def test_values_out_of_range(argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{argument}=-1"):
        EASE(**{argument: -1.0})  # type: ignore[arg-type]


def test_an_unknown_proxy() -> None:
    with pytest.raises(ConfigurationError, match="proxy=cosin is not known"):
        EASE(proxy="cosin")
