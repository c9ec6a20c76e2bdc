"""What is frozen is computed once, and the results are those without a cache, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from cl.experiment import Experiment
from cl.learner import Learner
from cl.models.frozen import Fingerprint, frozen_prefix, run_prefix, run_rest
from cl.models.model import Model
from cl.strategy import Strategy
from cl.stream import StreamInfo
from tests.conftest import Compose, toy_stream


class LastBlock(Strategy):
    """Trains the last block and the head."""

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.backbone.requires_grad_(False)
        model.backbone.blocks[-1].requires_grad_(True)


def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("palimpsest_nano_patch4_32", img_size=8).eval()


def ids(*modules: nn.Module) -> set[int]:
    return {id(p) for module in modules for p in module.parameters()}


def test_the_longest_frozen_start_is_found() -> None:
    net = vit()
    assert frozen_prefix(net, set()) == [net]
    assert frozen_prefix(net, ids(net)) is None
    found = frozen_prefix(net, ids(net.blocks[2], net.norm))
    assert found is not None
    assert found[-2:] == [net.blocks[0], net.blocks[1]]
    assert frozen_prefix(net, {id(net.pos_embed)}) is None


@pytest.mark.parametrize("first", [1, 2, 3])
def test_start_and_rest_are_the_whole(first: int) -> None:
    net, images = vit(), torch.randn(3, 3, 8, 8)
    prefix = frozen_prefix(net, ids(*net.blocks[first:]))
    assert prefix is not None
    with torch.no_grad():
        assert torch.equal(run_rest(net, prefix, run_prefix(net, prefix, images)), net(images))


def test_what_is_watched_adapted_or_random_is_not_frozen() -> None:
    net = vit()
    handle = net.blocks[1].register_forward_hook(lambda *_: None)
    assert frozen_prefix(net, set())[-1] is net.blocks[0]  # type: ignore[index]
    handle.remove()

    class Adapter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    net.blocks[1].mlp.drop2 = Adapter()
    assert frozen_prefix(net, set())[-1] is net.blocks[0]  # type: ignore[index]
    dropping = timm.create_model("palimpsest_nano_patch4_32", img_size=8, proj_drop_rate=0.1)
    assert frozen_prefix(dropping.eval(), set()) == [dropping]
    assert frozen_prefix(dropping.train(), set()) is None
    resnet = timm.create_model("resnet18", num_classes=0)
    assert frozen_prefix(resnet.eval(), set()) == [resnet]
    assert frozen_prefix(resnet.train(), set()) is None, "batch statistics are updated"


def test_the_fingerprint_follows_the_weights() -> None:
    net, fingerprint = vit(), Fingerprint()
    prefix = frozen_prefix(net, set())
    assert prefix is not None
    before = fingerprint.of(net, prefix)
    assert Fingerprint().of(vit(), [net]) != ""
    with torch.no_grad():
        net.blocks[0].mlp.fc1.bias[3] += 1
    after = fingerprint.of(net, prefix)
    assert after != before
    net.blocks[0].mlp.fc1.bias.data[3] -= 2
    assert fingerprint.of(net, prefix) == after, "a write through .data is seen only when told"
    fingerprint.forget()
    assert fingerprint.of(net, prefix) not in (before, after)


STRATEGIES = ["simplecil", "frozen", "ranpac", "naive", "l2p", "ewc", "lwf", "er"]
STRATEGIES += ["aper", "ease", "mos"]  # features through the slots of adapters


def matrix_and_state(experiment: Experiment) -> tuple[str, dict[str, Tensor]]:
    experiment.run()
    return experiment.matrix.to_csv(), experiment.learner.state.state_dict()


@pytest.mark.parametrize("strategy", [*STRATEGIES, "custom"])
@pytest.mark.parametrize("augment", ["none", "crop"])
def test_cache_on_and_off_give_the_same_bits(
    compose: Compose, strategy: str, augment: str, tmp_path: Path
) -> None:
    own = (
        ["+strategy._target_=tests.cl.models.test_frozen.LastBlock"] if strategy == "custom" else []
    )
    common = [f"strategy={strategy}", f"trainer.augment={augment}", *own]
    results = []
    for cache in ("cache.memory_gb=0", "cache.memory_gb=1", f"cache.dir={tmp_path}/cache"):
        results.append(matrix_and_state(Experiment(compose(*common, cache), loggers=[])))
    again = Experiment(compose(*common, f"cache.dir={tmp_path}/cache"), loggers=[])
    results.append(matrix_and_state(again))
    if strategy in ("simplecil", "frozen"):
        cache = again.learner.model.cache
        assert cache is not None
        assert cache.reused
        assert not cache.computed, "a second run computes nothing again"
    for text, state in results[1:]:
        assert text == results[0][0]
        for name, tensor in state.items():
            assert torch.equal(tensor, results[0][1][name]), name


def test_each_image_goes_through_a_frozen_backbone_once(compose: Compose) -> None:
    stream = toy_stream(tasks=4)
    experiment = Experiment(compose("strategy=simplecil", "+stream.tasks=4"), loggers=[])
    experiment.run()
    cache = experiment.learner.model.cache
    assert cache is not None
    images = sum(len(part) for part in (*stream.train, *stream.test))
    assert cache.computed == images
    assert cache.reused == sum(len(stream.test[0]) * rows for rows in range(1, 4))


def test_the_last_block_alone_is_run_again(compose: Compose) -> None:
    cfg = compose("strategy=custom", "+strategy._target_=tests.cl.models.test_frozen.LastBlock")
    cfg.trainer.augment = "none"
    learner = Learner(cfg, toy_stream().info)
    learner.learn(toy_stream().experience(0))
    cache = learner.model.cache
    assert cache is not None
    assert cache.computed == 24
    assert cache.reused == 24, "the second epoch"
    (table,) = cache.tables.values()
    assert table.store.shape[1:] == (5, 192), (
        "tokens of four patches and the class, after three blocks"
    )
