"""MOS's known answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.adapters import Adapter, adapters_of
from cl.ops.mixtures import ClassMixtures
from cl.training import create_optimizer
from strategies.mos import MOS
from tests.conftest import Compose, toy_stream

SMALL = ("strategy.bottleneck=4", "strategy.alignment_samples=16", "strategy.alignment_epochs=2")


def taught(compose: Compose, *overrides: str, experiences: int = 2, tasks: int = 2) -> Learner:
    stream = toy_stream(tasks)
    learner = Learner(compose("strategy=mos", *SMALL, "trainer.lr=0.1", *overrides), stream.info)
    for index in range(experiences):
        learner.learn(stream.experience(index))
    return learner


def method(learner: Learner) -> MOS:
    assert isinstance(learner.strategy, MOS)
    return learner.strategy


def set_all(adapter: Adapter, value: float) -> None:
    for parameter in adapter.parameters():
        parameter.data.fill_(value)


@pytest.mark.parametrize(
    ("mode", "before", "after"), [("once", 1.0, 0.0), ("official", 0.28243, -0.64581)]
)
def test_a_step_pulls_the_adapters_towards_their_predecessors(
    compose: Compose, mode: str, before: float, after: float
) -> None:
    """Twelve blocks, A = 1, the earlier one 0, α = 0.1, η g = 1: 0.9 (1 − 1), or 0.9 (0.9¹² − 1)."""
    backbone = ("backbone=vit_tiny", "backbone.image_size=16", f"strategy.merge_mode={mode}")
    learner, experience = taught(compose, *backbone, experiences=0), toy_stream().experience(0)
    strategy, adapters = method(learner), adapters_of(learner.model)
    assert len(adapters) == 12
    strategy.before_experience(experience)
    for adapter in adapters:
        set_all(adapter, 0.0)
        adapter.keep()
        set_all(adapter, 1.0)
    loss = strategy.loss(next(strategy.batches(experience)))

    def all_are(value: float) -> None:
        for adapter in adapters:
            for parameter in adapter.parameters():
                expected = torch.full_like(parameter, value)
                torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)

    all_are(before)
    loss.backward()
    for adapter in adapters:
        for parameter in adapter.parameters():
            assert parameter.grad is not None
            parameter.data -= 1.0
    strategy.after_step()
    all_are(after)


@pytest.mark.parametrize(("mode", "pulls"), [("once", 6), ("official", 6 * 5)])
def test_pulls_happen_in_training_only(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, mode: str, pulls: int
) -> None:
    """Six steps, four blocks; evaluation and what follows a task pull nothing."""
    learner, counted = taught(compose, f"strategy.merge_mode={mode}", experiences=1), []
    strategy = method(learner)
    pull = strategy.pull
    monkeypatch.setattr(strategy, "pull", lambda times: (counted.append(times), pull(times)))
    assert learner.learn_experience(toy_stream().experience(1)) == 6
    learner.logits(toy_stream().test[0])
    assert sum(counted) == pulls


def test_the_pull_goes_to_the_mean_of_all_predecessors(compose: Compose) -> None:
    adapter = adapters_of(taught(compose, experiences=0).model)[0]
    for value in (1.0, 2.0, 6.0):
        set_all(adapter, value)
        adapter.keep()
    adapter.pull(1.0)
    assert all((parameter == 3.0).all() for parameter in adapter.parameters())
    adapter.pull(0.1)
    for parameter in adapter.parameters():
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 3.0))


def test_without_predecessors_or_strength_nothing_is_pulled(compose: Compose) -> None:
    for overrides, experiences in (((), 0), (("strategy.merge=0.0",), 1)):
        strategy = method(taught(compose, *overrides, experiences=experiences))
        for adapter in adapters_of(strategy.run.model):
            set_all(adapter, 1.0)
        strategy.after_step()
        assert all(
            (p == 1.0).all() for a in adapters_of(strategy.run.model) for p in a.parameters()
        )


def test_a_task_starts_from_the_adapter_of_the_task_before(compose: Compose) -> None:
    learner = taught(compose, experiences=1)
    before = [p.clone() for a in adapters_of(learner.model) for p in a.parameters()]
    learner.strategy.before_experience(toy_stream().experience(1))
    after = [p for a in adapters_of(learner.model) for p in a.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("normalise", [True, False])
def test_the_orthogonality_is_the_formula(compose: Compose, normalise: bool) -> None:
    strategy = method(taught(compose, f"strategy.normalise={normalise}"))
    features = torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
    rows = [*strategy.gaussians.means.float(), *features]
    assert len(rows) == 7
    if normalise:
        rows = [row / row.norm() for row in rows]
    expected = torch.stack(
        [torch.stack([a @ b / 0.8 for b in rows]).log_softmax(0)[i] for i, a in enumerate(rows)]
    )
    found = strategy.unlike_each_other(features)
    torch.testing.assert_close(found, -expected.mean(), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def slow_answer(strategy: MOS, image: torch.Tensor) -> torch.Tensor:
    """The method's inference as it is told, for a single image."""
    model, tasks = strategy.run.model, strategy.tasks.tolist()
    prototypes = (strategy.prototypes.sums / strategy.prototypes.counts[:, None]).float()

    def through(slot: int) -> torch.Tensor:
        for adapter in adapters_of(model):
            for name in Adapter.TENSORS:
                adapter.get_parameter(name).data.copy_(adapter.kept(name)[slot])
        return model.backbone(image[None])[0]

    q = F.cosine_similarity(through(0)[None], prototypes)
    k = tasks[int(q.argmax())]
    for _ in range(4):
        z = F.linear(through(k), model.head.weight, model.head.bias)
        if tasks[int(z.argmax())] == k:
            break
        k = tasks[int(z.argmax())]
    return z.softmax(0) + (q * (max(tasks) + 1)).softmax(0)


def test_the_batched_answer_is_the_slow_one_image_by_image(compose: Compose) -> None:
    """Adapters and head are disturbed, so that images disagree on the task and some never settle."""
    strategy = method(taught(compose, experiences=4, tasks=4))
    generator = torch.Generator().manual_seed(1)
    for adapter in adapters_of(strategy.run.model):
        for name in Adapter.TENSORS:
            kept = adapter.kept(name)
            kept += torch.randn(kept.shape, generator=generator)
    images = torch.randn(32, 3, 8, 8, generator=generator)
    moves: list[int] = []
    original = strategy.features

    def counted(images: torch.Tensor, slots: torch.Tensor | int) -> torch.Tensor:
        moves.append(len(images))
        return original(images, slots)

    strategy.features = counted  # type: ignore[method-assign]
    with torch.no_grad():
        found = strategy.predict(images)
    assert len(moves) > 2, "some images changed their task"
    expected = torch.stack([slow_answer(strategy, image) for image in images])
    torch.testing.assert_close(2 * found.exp(), expected, rtol=1e-3, atol=1e-5)


def test_on_the_first_task_both_branches_weigh_the_same(compose: Compose) -> None:
    learner = taught(compose, experiences=1)
    strategy = method(learner)
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        features = learner.model.backbone(images)
        expected = learner.model.head(features).softmax(1) + strategy.prototypes(features).softmax(
            1
        )
        torch.testing.assert_close(2 * strategy.predict(images).exp(), expected)


@pytest.mark.parametrize("prototypes", ["first", "backbone"])
def test_prototypes_are_means_of_the_named_features(compose: Compose, prototypes: str) -> None:
    strategy = method(taught(compose, f"strategy.prototypes={prototypes}"))
    batch = next(strategy.batches(toy_stream().experience(1)))
    with torch.no_grad():
        features = strategy.features(batch.images, 0 if prototypes == "first" else -1)
    head = strategy.prototypes
    expected = features[batch.labels == 2].mean(0)
    torch.testing.assert_close((head.sums[2] / head.counts[2]).float(), expected)


def test_the_gaussians_are_those_of_the_newest_adapter(compose: Compose) -> None:
    strategy = method(taught(compose))
    batch = next(strategy.batches(toy_stream().experience(1)))
    with torch.no_grad():
        features = strategy.features(batch.images, 1)[batch.labels == 3].double()
    torch.testing.assert_close(strategy.gaussians.means[3], features.mean(0))
    expected = torch.cov(features.T).float()
    torch.testing.assert_close(strategy.gaussians.spreads[3], expected, rtol=1e-3, atol=1e-4)


def test_ten_centres_per_class_in_the_place_of_a_covariance(
    compose: Compose, tmp_path: Path
) -> None:
    stream, learner = toy_stream(), taught(compose, "strategy.covariance=centroids")
    gaussians = method(learner).gaussians
    assert isinstance(gaussians, ClassMixtures)
    assert gaussians.owners.bincount().tolist() == [10] * 4, "of twelve images in a class"
    batch = next(method(learner).batches(stream.experience(1)))
    with torch.no_grad():
        features = method(learner).features(batch.images, 1)[batch.labels == 3].double()
    torch.testing.assert_close(gaussians.means[3], features.mean(0))
    learner.save(tmp_path)
    logits = Learner.load(tmp_path).logits(stream.test[0])
    assert torch.equal(logits, learner.logits(stream.test[0]))


def test_the_backbone_and_old_adapters_keep_their_bits_and_alignment_moves_the_head(
    compose: Compose,
) -> None:
    stream = toy_stream()
    learner, unaligned = (
        taught(compose, f"strategy.alignment_epochs={epochs}", experiences=1) for epochs in (2, 0)
    )
    backbone = {
        n: p.clone() for n, p in learner.model.backbone.named_parameters() if "adapter" not in n
    }
    kept = [adapter.kept("up").clone() for adapter in adapters_of(learner.model)]
    for each in (learner, unaligned):
        each.learn(stream.experience(1))
    for name, tensor in backbone.items():
        assert torch.equal(learner.model.backbone.get_parameter(name), tensor)
    for old, adapter in zip(kept, adapters_of(learner.model), strict=True):
        assert torch.equal(adapter.kept("up")[:1], old)
        assert not torch.equal(adapter.kept("up")[1:], old)
    other = unaligned.model.state_dict()
    differ = {n for n, t in learner.model.state_dict().items() if not torch.equal(t, other[n])}
    assert differ == {"head.weight", "head.bias"}


def test_adapters_and_head_are_trained_and_nothing_else(compose: Compose) -> None:
    learner = taught(compose)
    adapters, head = learner.strategy.parameter_groups()
    counts = [sum(p.numel() for p in group["params"]) for group in (adapters, head)]
    assert counts == [4 * (2 * 192 * 4 + 4 + 192), 4 * (192 + 1)]
    assert learner.trainable_parameters == sum(counts)


def test_the_head_learns_ten_times_slower_than_the_adapters(compose: Compose) -> None:
    learner = taught(compose, "trainer.lr=0.03")
    optimizer = create_optimizer(learner.strategy.parameter_groups(), learner.config)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.03, 0.003])


def test_a_stream_that_repeats_classes_is_refused(compose: Compose) -> None:
    learner = taught(compose, experiences=1)
    again = dataclasses.replace(toy_stream().experience(0), index=1, new_classes=())
    with pytest.raises(ConfigurationError, match="class-incremental"):
        learner.learn(again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"merge_mode": "twice"}, "merge_mode=twice"),
        ({"prototypes": "last"}, "prototypes=last"),
        ({"covariance": "none"}, "covariance=none"),
        ({"merge": 1.5}, "merge=1.5"),
        ({"orthogonality": -1.0}, "orthogonality=-1.0"),
        ({"rounds": 0}, "rounds=0"),
        ({"alignment_samples": 0}, "alignment_samples=0"),
    ],
)
def test_values_out_of_range(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MOS(**arguments)  # type: ignore[arg-type]
