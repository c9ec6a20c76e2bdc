"""An adapter that the network does not use is an error before the first step, and looking changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cl.errors import ConfigurationError
from cl.learner import Learner
from cl.models.anatomy import replace_layer
from cl.models.lora import LoRALayer, inject_lora
from cl.models.model import Model
from cl.models.reachable import check_adapters
from cl.strategy import Strategy
from cl.stream import StreamInfo
from tests.conftest import Compose, toy_stream


class Careless(nn.Module):
    """Calls one layer, reads the weight of another, and has a third for no purpose."""

    def __init__(self, reads: bool = False) -> None:
        super().__init__()
        self.called, self.read, self.spare = (nn.Linear(4, 4) for _ in range(3))
        self.reads, self.drop = reads, nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.called(x))
        return y @ self.read.weight if self.reads else y


class Weighing(LoRALayer):
    """An adapter that looks like the plain layer to those that read its weight."""

    @property
    def weight(self) -> Tensor:
        return self.base.weight


def adapted(name: str, reads: bool = False, kind: type[LoRALayer] = LoRALayer) -> nn.Module:
    network = Careless(reads).train()
    inject_lora(network, [name], 2, 2, kind=kind)
    return network


def check(network: nn.Module) -> None:
    trained = {id(p) for p in network.parameters() if p.requires_grad}
    check_adapters(network, trained, torch.zeros(1, 4))


def test_an_adapter_that_is_called_passes_and_nothing_changes() -> None:
    network = adapted("called")
    network.drop.eval()
    modes, state = [m.training for m in network.modules()], torch.get_rng_state()
    versions = [p._version for p in network.parameters()]
    check(network)
    assert [m.training for m in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert [p._version for p in network.parameters()] == versions
    assert all(p.grad is None for p in network.parameters())


def test_an_adapter_that_is_not_called_is_an_error() -> None:
    with pytest.raises(
        ConfigurationError, match=r"A, B of .* place of spare .* do not depend on it"
    ):
        check(adapted("spare"))
    with pytest.raises(ConfigurationError, match="place of read "):
        check(adapted("read", reads=True, kind=Weighing))
    with pytest.raises(ConfigurationError, match="reads the weight of a layer instead of calling"):
        check(adapted("read", reads=True))
    check_adapters(adapted("spare"), set(), torch.zeros(1, 4))


class ReadsDirectly(Strategy):
    """Puts low-rank layers where timm's EVA reads the weight, without asking how it can be put there."""

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.backbone.requires_grad_(False)
        for block in model.backbone.blocks:
            block.attn.qkv = Weighing(block.attn.qkv, 2, 2)


class ReplacesLayers(ReadsDirectly):
    """The same, by the function that knows how."""

    def setup(self, model: Model, stream: StreamInfo) -> None:
        model.backbone.requires_grad_(False)
        for index, block in enumerate(model.backbone.blocks):
            name = f"blocks.{index}.attn.qkv"
            replace_layer(model.backbone, name, Weighing(block.attn.qkv, 2, 2))


@pytest.mark.parametrize("strategy", ["ReadsDirectly", "ReplacesLayers"])
def test_a_learner_says_so_before_the_first_step(compose: Compose, strategy: str) -> None:
    target = f"+strategy._target_=tests.cl.models.test_reachable.{strategy}"
    size = ["backbone.name=eva02_tiny_patch14_224", "backbone.image_size=28", "trainer.epochs=1"]
    stream = toy_stream(images=8)
    learner = Learner(compose("strategy=custom", target, *size), stream.info)
    if strategy == "ReplacesLayers":
        assert learner.learn(stream.experience(0)) == 1
        return
    with pytest.raises(ConfigurationError, match=r"blocks\.0\.attn\.qkv .* a Eva does not call"):
        learner.learn(stream.experience(0))
