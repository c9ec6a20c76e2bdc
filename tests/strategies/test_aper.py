"""APER's known answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from cl.errors import ConfigurationError, PalimpsestError
from cl.learner import Learner
from cl.models.heads import PrototypeHead
from strategies.aper import ADAPTATIONS, APER
from tests.conftest import Compose, toy_stream

both = pytest.mark.parametrize("adaptation", ["adapter", "finetune"])
every = pytest.mark.parametrize("adaptation", ADAPTATIONS)


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


@every
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
    if adaptation != "finetune":
        injected = (".adapter.", ".scale", ".shift", ".prompt")
        assert all(any(part in name for part in injected) for name in changed)
    assert learner.learn(stream.experience(1)) == 0
    assert learner.trainable_parameters == 0
    for name, tensor in learner.state.state_dict().items():
        if name.startswith("model.head."):
            assert torch.equal(tensor[:2], adapted[name][:2])
        elif name != "strategy.objective.mask":
            assert torch.equal(tensor, adapted[name]), name
    assert isinstance(learner.model.head, PrototypeHead)


@every
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


@every
def test_a_stored_learner_goes_on_with_the_same_two_branches(
    compose: Compose, adaptation: str, tmp_path: Path
) -> None:
    stream, learner = toy_stream(), taught(compose, adaptation, "trainer.lr=0.1", order=(0,))
    learner.save(tmp_path)
    loaded = Learner.load(tmp_path)
    for each in (learner, loaded):
        each.learn(stream.experience(1))
    assert torch.equal(loaded.logits(stream.test[0]), learner.logits(stream.test[0]))


def test_the_frozen_backbone_is_kept_once(compose: Compose) -> None:
    """Besides what is trained there are, for both classes, 2 × 192 sums and a count."""
    learner = taught(compose, "vpt_deep", order=(0,))
    prompts = 5 * 192 * len(learner.model.backbone.blocks)
    assert learner.stored_numbers == prompts + 2 * (2 * 192 + 1)


@every
def test_two_networks_are_no_plain_model(compose: Compose, adaptation: str, tmp_path: Path) -> None:
    learner = taught(compose, adaptation, order=(0,))
    with pytest.raises(PalimpsestError, match=r"Learner\.save"):
        learner.export(tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_finetuning_takes_any_backbone(compose: Compose) -> None:
    cfg = compose(
        "strategy=aper", "strategy.adaptation=finetune", "backbone=resnet18",
        "backbone.image_size=32", "backbone.pretrained=false",
    )  # fmt: skip
    learner = Learner(cfg, toy_stream().info)
    learner.learn(toy_stream().experience(0))
    assert learner.logits(toy_stream().test[0]).shape == (12, 2)


def test_values_out_of_range() -> None:
    with pytest.raises(ConfigurationError, match=r"adaptation=vpt .*vpt_deep"):
        APER("vpt")
