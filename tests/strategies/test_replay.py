from __future__ import annotations

import torch

from cl.data import Batch
from cl.learner import Learner
from tests.conftest import Compose, toy_stream


def learnt(compose: Compose, *overrides: str) -> Learner:
    learner = Learner(compose(*overrides), toy_stream().info)
    for index in range(2):
        learner.learn(toy_stream().experience(index))
    return learner


def test_on_naive_fine_tuning_it_is_er_bit_for_bit(compose: Compose) -> None:
    er = learnt(compose, "strategy=er", "trainer.augment=crop_flip")
    same = learnt(
        compose, "strategy=naive", "plugin=[replay]", "trainer.lr=1e-4", "trainer.augment=crop_flip"
    )
    assert er.config.lr == same.config.lr
    for name, weight in er.model.state_dict().items():
        assert torch.equal(weight, same.model.state_dict()[name]), name
    memories = er.strategy.memory, same.plugins[0].memory  # type: ignore[union-attr]
    assert torch.equal(memories[0].images, memories[1].images)  # type: ignore[union-attr]
    assert same.logged.keys() >= {"memory_bytes"}


def test_it_combines_with_another_plugin_on_o_lora(compose: Compose) -> None:
    both = learnt(compose, "strategy=olora", "plugin=[replay,ema]")
    alone = learnt(compose, "strategy=olora", "plugin=[ema]")
    assert [type(plugin).__name__ for plugin in both.plugins] == ["Replay", "EMA"]
    data = toy_stream().test[0]
    assert not torch.equal(both.logits(data), alone.logits(data))


def test_a_strategy_with_a_memory_of_its_own_is_not_offered_replayed_images(
    compose: Compose,
) -> None:
    learner = learnt(compose, "strategy=der", "plugin=[replay]", "strategy.repeats=false")
    own = learner.strategy.memory  # type: ignore[union-attr]
    assert len(own) == 48, "each training image once"  # type: ignore[arg-type]


def test_the_strategy_sees_old_images_behind_the_new_ones(compose: Compose) -> None:
    learner = learnt(compose, "strategy=naive", "plugin=[replay]", "plugin.replay.memory_batch=3")
    experience = toy_stream().experience(1)
    plugin = learner.plugins[0]
    plugin.training_data(experience.train, experience)
    seen: list[Batch] = []

    def loss(batch: Batch) -> torch.Tensor:
        seen.append(batch)
        return torch.zeros(())

    batch = next(learner.strategy.batches(experience))
    plugin.around(loss, batch)
    assert len(seen[0]) == len(batch) + 3
    assert seen[0].positions.tolist()[-3:] == [-1, -1, -1]
    assert torch.equal(seen[0].labels[:-3], batch.labels)
