"""The optimisation loop: one experience, on Lightning Fabric."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cl.config import TrainerConfig
from cl.data import Batch
from cl.errors import ConfigurationError, DivergenceError
from cl.random import derive_seed, generator
from cl.strategy import Hooks, ParameterGroup, Plugin, Strategy

CHECK_STEPS = 50
"""On a GPU, how often the loss is looked at: reading it waits for the device."""


@dataclass(frozen=True)
class Progress:
    """Where the training of an experience is; given to the callback after every step.

    loss is a tensor on the device: reading it costs a synchronisation.
    """

    experience: int
    step: int
    steps: int
    images: int
    lr: float
    loss: Tensor


class Objective(nn.Module):
    """The whole loss of a step as one module, so that Fabric can wrap it (precision, DDP)."""

    def __init__(self, model: nn.Module, strategy: Strategy, plugins: Sequence[Plugin]) -> None:
        super().__init__()
        self.model, self.strategy, self.plugins = model, strategy, list(plugins)

    def forward(self, batch: Batch) -> Tensor:
        """The scalar loss of a batch."""
        loss = self.strategy.loss(batch)
        for plugin in self.plugins:
            loss = loss + plugin.loss(batch) + plugin.penalty()
        return loss


def create_fabric(config: TrainerConfig) -> Fabric:
    """The Fabric that `trainer.device` and `trainer.precision` describe."""
    kind, _, index = config.device.partition(":")
    precision: Any = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[config.precision]
    devices: Any = [int(index)] if index else 1
    try:
        return Fabric(accelerator=kind, devices=devices, precision=precision)
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"trainer.device={config.device}: {error} Use auto, cpu, cuda or cuda:0."
        ) from None


def train(
    fabric: Fabric,
    model: nn.Module,
    strategy: Strategy,
    plugins: Sequence[Plugin],
    experience: int,
    config: TrainerConfig,
    data: Callable[[torch.Generator], Iterator[Batch]],
    steps: int,
    seed: int,
    on_step: Callable[[Progress], None],
) -> None:
    """Optimise over `config.epochs` passes of `data`, calling the hooks of each step in order.

    data: a shuffled pass, given the generator of its order. steps: of all passes together.
    """
    torch.manual_seed(derive_seed(seed, "training", experience))  # dropout
    hooks: list[Hooks] = [strategy, *plugins]
    optimizer = create_optimizer(strategy.parameter_groups(), config)
    objective, wrapped = fabric.setup(Objective(model, strategy, plugins), optimizer)
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(config.schedule, step, steps))
    order = generator(seed, "order", experience)
    model.train()
    step = images = 0
    for _ in range(config.epochs):
        for batch in data(order):
            lr = float(schedule.get_last_lr()[0])
            loss = take_step(fabric, objective, wrapped, hooks, batch)
            schedule.step()
            step, images = step + 1, images + len(batch.labels)
            if fabric.device.type == "cpu" or step % CHECK_STEPS == 0 or step == steps:
                check_finite(loss, model, step, lr)
            on_step(Progress(experience, step, steps, images, lr, loss))
    model.eval()
    for hook in hooks:
        hook.after_training()


def take_step(
    fabric: Fabric, objective: nn.Module, optimizer: Any, hooks: Sequence[Hooks], batch: Batch
) -> Tensor:
    """One step of the optimisation with its hooks; returns the loss before it, detached."""
    loss: Tensor = objective(batch)
    optimizer.zero_grad()
    fabric.backward(loss)
    for hook in hooks:
        hook.after_backward()
    optimizer.step()
    for hook in hooks:
        hook.after_step()
    return loss.detach()


def check_finite(loss: Tensor, model: nn.Module, step: int, lr: float) -> None:
    """Raise DivergenceError, with the tensors concerned, if the loss is not a finite number."""
    if torch.isfinite(loss):
        return
    broken = [
        name
        for name, weight in model.named_parameters()
        if not (weight.isfinite().all() and (weight.grad is None or weight.grad.isfinite().all()))
    ]
    shown = ", ".join(broken[:5]) + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
    raise DivergenceError(
        f"The loss is {float(loss)} at step {step}, with learning rate {lr:g}. "
        f"Not finite, in weights or gradients: {shown or 'none, so it is the loss itself'}.\n"
        f"Try a smaller one: trainer.lr={lr / 10:g}. The last checkpoint is as it was."
    )


def count_steps(images: int, config: TrainerConfig) -> int:
    """How many steps the training on so many images takes."""
    return config.epochs * math.ceil(images / config.batch_size)


def create_optimizer(groups: Sequence[ParameterGroup], config: TrainerConfig) -> Optimizer:
    """The optimiser over the strategy's parameter groups; a group's own settings win."""
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    groups = [
        {
            "lr": config.lr * group.get("lr_factor", 1.0),
            **group,
        }  # a copy: torch.optim writes into it
        for group in groups
    ]
    if config.optimizer == "sgd":
        return SGD(groups, momentum=config.momentum, **shared)
    return (Adam if config.optimizer == "adam" else AdamW)(groups, **shared)


def learning_rate_factor(schedule: str, step: int, steps: int) -> float:
    """The factor on the learning rate at `step` of `steps`: 1, or half a cosine from 1 to 0."""
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
