"""The optimisation loop: one experience, on Lightning Fabric."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cl.checkpoint import check_numbers
from cl.config import TrainerConfig
from cl.data import ArrayDataset, Batch, Order
from cl.data.loading import check_order
from cl.errors import DivergenceError
from cl.fabric import Fabric
from cl.models.model import Model
from cl.random import derive_seed, generator
from cl.stored import require_alike
from cl.strategy import Chain, Hooks, ParameterGroup, Progress, Run

CHECK_STEPS = 50
"""On a GPU, how often the loss is looked at: reading it waits for the device."""


class StepLoss(nn.Module):
    """The whole loss of a step as one module, so that Fabric can wrap it (precision, DDP)."""

    def __init__(self, model: Model, methods: Chain) -> None:
        super().__init__()
        self.model, self.strategy, self.methods = model, methods.strategy, methods

    def forward(self, batch: Batch) -> Tensor:
        """The scalar loss of a batch."""
        with self.model.ranks.sharing():
            return self.methods.loss(batch)


class Training:
    """The optimisation of one experience; it can say where it is and go on from there.

    data: what is trained on. run: the methods'; its `progress` and `optimizer` are kept up to date.
    """

    def __init__(
        self,
        fabric: Fabric,
        methods: Chain,
        run: Run,
        data: ArrayDataset,
        experience: int,
    ) -> None:
        torch.manual_seed(derive_seed(run.seed, "training", experience))  # dropout
        config, steps = run.trainer, count_steps(len(data), run.trainer)
        self.fabric, self.methods, self.context, self.config = fabric, methods, run, config
        self.images = len(data)
        optimizer = create_optimizer(methods.parameter_groups(), config)
        self.loss, self.optimizer = fabric.setup(StepLoss(run.model, methods), optimizer)
        self.schedule = LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(config, step, steps),
        )
        self.order = Order(
            generator(run.seed, "order", experience), lambda drawn: methods.order(drawn, data)
        )
        run.optimizer = optimizer
        run.progress = Progress(experience, 0, config.epochs, 0, steps)

    @property
    def progress(self) -> Progress:
        """Where it is."""
        return self.context.progress

    def train(
        self, data: Callable[[Order], Iterator[Batch]], on_step: Callable[[Progress], None]
    ) -> None:
        """Take what is left of the steps, calling the hooks of each in order.

        data: what is left of a shuffled pass, given its order. There are `config.epochs` passes.
        """
        model = self.context.model
        model.train()
        while self.progress.epoch < self.progress.epochs:
            for batch in data(self.order):
                self._take(batch)
                on_step(self.progress)
            self.context.progress = replace(self.progress, epoch=self.progress.epoch + 1)
        model.eval()
        for hooks in self.methods:
            hooks.after_training()
        self.context.optimizer = None

    def _take(self, batch: Batch) -> None:
        for hooks in self.methods:
            hooks.before_step(batch)
        lr = float(self.schedule.get_last_lr()[0])
        loss = take_step(self.fabric, self.loss, self.optimizer, list(self.methods), batch)
        self.schedule.step()
        now = self.progress
        step, images = now.step + 1, now.images + len(batch)
        self.context.progress = replace(now, step=step, images=images, lr=lr, loss=loss)
        on_cpu = self.fabric.device.type == "cpu"
        if on_cpu or step % CHECK_STEPS == 0 or step == now.steps:
            check_finite(loss, self.context.model, step, lr)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Where it is: tensors, and values for JSON. The model's and the methods' state is not in it."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"order.{name}": value for name, value in self.order.state().items()}
        tensors["random"] = torch.get_rng_state()
        if self.fabric.device.type == "cuda":
            tensors["random_cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        for index, own in optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in own.items()}
        groups = [
            {k: v for k, v in group.items() if k != "params"} for group in optimizer["param_groups"]
        ]
        schedule = {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"}
        now = self.progress
        tensors["loss"] = now.loss
        counters = {"epoch": now.epoch, "step": now.step, "images": now.images, "lr": now.lr}
        scaler = getattr(self.fabric._precision, "scaler", None)
        scale = None if scaler is None else scaler.state_dict()
        return tensors, {**counters, "groups": groups, "schedule": schedule, "scaler": scale}

    def load(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go to where `state` was taken; raises whatever malformed content leads to."""
        _, own = self.state()
        require_alike(values, {**own, "lr": 0.0}, "training")
        if _settings(values) != _settings(own):
            raise ValueError("the optimiser has other settings")
        counters = {key: values[key] for key in ("epoch", "step", "images", "lr")}
        self._check_place(counters, values["schedule"], tensors)
        loss = tensors["loss"].to(self.fabric.device)
        self.context.progress = replace(self.progress, **counters, loss=loss)
        state = self._optimizer_state(tensors)
        groups = self.optimizer.state_dict()["param_groups"]
        merged = [{**old, **new} for old, new in zip(groups, values["groups"], strict=True)]
        self.optimizer.load_state_dict({"state": state, "param_groups": merged})
        no_lambdas = {"lr_lambdas": [None] * len(groups)}  # ours are there already
        self.schedule.load_state_dict({**values["schedule"], **no_lambdas})
        self.order.load({n: tensors[f"order.{n}"] for n in ("positions", "now", "batch")})
        torch.set_rng_state(tensors["random"])
        if self.fabric.device.type == "cuda" and "random_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random_cuda"], self.fabric.device)
        if values["scaler"] is not None:
            self.fabric._precision.scaler.load_state_dict(values["scaler"])  # type: ignore[attr-defined]

    def _optimizer_state(self, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """What the optimiser keeps of each parameter, by its number; ValueError for another shape."""
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind != "optimizer":
                continue
            index, _, key = rest.partition(".")
            check_numbers(tensor, name)
            if tensor.shape not in (trained[int(index)].shape, ()):
                raise ValueError(f"{name} is of shape {tuple(tensor.shape)}")
            state.setdefault(int(index), {})[key] = tensor
        return state

    def _check_place(
        self, counters: dict[str, Any], schedule: dict[str, Any], tensors: dict[str, Tensor]
    ) -> None:
        """Raise ValueError unless the counters are of one moment, and the positions of this data set."""
        now, step, batch = self.progress, counters["step"], int(tensors["order.batch"])
        passed = counters["epoch"] * (now.steps // now.epochs) + batch
        if not (batch > 0 and passed == step == schedule["last_epoch"] and step < now.steps):
            raise ValueError(f"step {step} of {now.steps} is not where its counters are")
        check_order(tensors["order.positions"], self.images)


def _settings(values: dict[str, Any]) -> Any:
    """What of the optimiser stays as it was made, as JSON knows it."""
    groups = [{key: v for key, v in group.items() if key != "lr"} for group in values["groups"]]
    return json.loads(json.dumps([groups, values["schedule"]["base_lrs"]]))


def take_step(
    fabric: Fabric, step_loss: nn.Module, optimizer: Any, hooks: Sequence[Hooks], batch: Batch
) -> Tensor:
    """One step of the optimisation with its hooks; returns the loss before it, detached."""
    loss: Tensor = step_loss(batch)
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
    # Copies: torch.optim writes into them.
    groups = [{"lr": config.lr * group.get("lr_factor", 1.0), **group} for group in groups]
    if config.optimizer == "sgd":
        return SGD(groups, momentum=config.momentum, **shared)
    return (Adam if config.optimizer == "adam" else AdamW)(groups, **shared)


def learning_rate_factor(config: TrainerConfig, step: int, steps: int) -> float:
    """The factor on the learning rate at `step` of the `steps` of an experience.

    cosine: half a cosine from 1 to 0. quarter_cosine: cos(99π e / (200 (K − 1))) in the whole of epoch e of
    K, from 1 to 0.016; 1 if K = 1 (the official code of Smith et al., 2023). milestones: a tenth at each.
    """
    epoch = step * config.epochs // max(1, steps)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
    if config.schedule == "quarter_cosine":
        return math.cos(99 / 200 * math.pi * epoch / max(1, config.epochs - 1))
    return 0.1 ** sum(epoch >= milestone for milestone in config.milestones)
