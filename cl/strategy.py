"""What a strategy or a plugin overrides. A new method is one class in one file; nothing registers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from cl.config import TrainerConfig
from cl.data.arrays import Array, ArrayDataset
from cl.data.loading import Batch, batches
from cl.data.transforms import augment
from cl.models.model import Model
from cl.objective import Classes, Classification, Objective
from cl.random import generator
from cl.stream import Experience, StreamInfo

ParameterGroup = dict[str, Any]
LossOfBatch = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Progress:
    """Where the training of an experience is.

    epoch, step: how many are behind us, of `epochs` and `steps`. images: how many were shown. lr: the
    learning rate of the last step, and loss: its loss, a tensor on the device (reading it costs a
    synchronisation); NaN before the first.
    """

    experience: int = 0
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    images: int = 0
    lr: float = float("nan")
    loss: Tensor = field(default_factory=lambda: torch.tensor(float("nan")))


@dataclass
class Run:
    """What the framework gives a method, as `self.run`: the one attribute of a method that is not its own.

    model: what the method acts on; it is not part of the method's state. seed: its random choices derive
    from it (`Hooks.generator`). trainer: how the run trains, batch sizes among it. augmentation: of
    training images, a key of `cl.data.AUGMENTATIONS`. strategy: for a plugin to look at. progress: where
    the training is. optimizer: while there is one, to look at (`optimizer.state[parameter]`). logged: the
    numbers that methods reported last.
    """

    model: Model
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    augmentation: str = "none"
    strategy: Strategy | None = None
    progress: Progress = field(default_factory=Progress)
    optimizer: Optimizer | None = None
    logged: dict[str, Tensor] = field(default_factory=dict)


class Hooks(nn.Module):
    """The moments of a run that a method can act on. Each hook does nothing unless overridden.

    A method's state is what it holds: buffers, parameters, submodules, and attributes that are made of
    numbers, strings, tensors and containers of them (`cl.snapshot`). It survives without code of its own.

    cost: what it computes besides fine-tuning's steps, or instead of them, for a table. transient: names of
    attributes that need not survive between two experiences.
    """

    cost: ClassVar[str] = ""
    transient: ClassVar[tuple[str, ...]] = ()
    run: Run

    def __init__(self) -> None:
        super().__init__()

    def log(self, name: str, value: Tensor) -> None:
        """Report a number of this step, such as a part of the loss."""
        self.run.logged[name] = value.detach()

    def generator(self, purpose: str, experience: int = 0) -> Generator:
        """A CPU generator of its own for this purpose and experience."""
        return generator(self.run.seed, f"{type(self).__name__}/{purpose}", experience)

    def batches(self, experience: Experience, limit: int | None = None) -> Iterator[Batch]:
        """One pass over the training data, un-augmented; over `limit` random images of them, if given."""
        data = experience.train
        if limit is not None and limit < len(data):
            order = torch.randperm(len(data), generator=self.generator("subset", experience.index))
            data = data.subset(order[:limit].sort().values.numpy())
        size = self.run.trainer.evaluation_batch_size
        return batches(data, self.run.model.transform, size, self.run.device)

    def prepare(self, images: Array | Tensor, order: Generator | None = None) -> Tensor:
        """uint8 B × H × W × C as the backbone takes them; augmented if there is a generator."""
        pixels = torch.as_tensor(images).to(self.run.device)
        if order is not None:
            pixels = augment(pixels, self.run.augmentation, order)
        return self.run.model.transform(pixels)

    def setup(self, model: Model, stream: StreamInfo) -> None:
        """Once, before the first experience: inject adapters, replace the head."""

    def before_experience(self, experience: Experience) -> None:
        """Before each experience: grow the head, add an adapter, choose what is trained."""

    def order(self, positions: Tensor, data: ArrayDataset) -> Tensor:
        """Before each pass: which images of `data` it shows, in which order.

        positions: a random permutation, int64 len(data). What is returned must have as many; one may come
        twice.
        """
        return positions

    def before_training(self, steps: int) -> None:
        """Before the first step of an experience, when the number of its steps is known."""

    def before_step(self, batch: Batch) -> None:
        """Every step, before the forward pass: schedules, or a move of the weights."""

    def penalty(self) -> Tensor | float:
        """Every step: a term of the loss that needs no data."""
        return 0.0

    def after_backward(self) -> None:
        """Every step, when the gradients are there: project, mask, clip."""

    def after_step(self) -> None:
        """Every step, when the weights have moved: average, threshold, re-project."""

    def after_training(self) -> None:
        """After the last step of an experience, before any method's `after_experience`: average."""

    def after_experience(self, experience: Experience) -> None:
        """After each experience: Fisher information, merging, prototypes."""


class Strategy(Hooks):
    """A continual-adaptation method. Without overrides it is naive fine-tuning of everything.

    The class says what the method is:
    rehearsal: it stores training images. needs_task_id: `predict` must be told the task.
    grows: what it stores more of with every experience. gradient_free: it has no training loop; a method
    that trains in the first experience only sets it in `before_experience`.
    own_loop: it trains in a loop of its own, which plugins do not see and a checkpoint does not hold.
    stored_elsewhere: how many numbers it keeps that are not in its tensors.
    sequential: it goes on from what it learnt before; if not, forgetting is undefined.
    neutral: the arguments with which it is naive fine-tuning, if there are such.
    loss_classes: the classes that its objective's cross-entropy is over, "current" or all "seen".
    """

    rehearsal: ClassVar[bool] = False
    needs_task_id: ClassVar[bool] = False
    grows: ClassVar[str] = "head"
    gradient_free: bool = False
    own_loop: ClassVar[bool] = False
    sequential: ClassVar[bool] = True
    stored_elsewhere: int = 0
    neutral: ClassVar[dict[str, Any] | None] = None
    loss_classes: ClassVar[Classes] = "current"
    objective: Objective

    def __init__(self) -> None:
        super().__init__()
        self.objective = Classification(self.loss_classes)

    def before_experience(self, experience: Experience) -> None:
        """Grow the head to the classes seen."""
        self.grow_head(experience)

    def grow_head(self, experience: Experience) -> None:
        """Let the objective begin: the head grows to the classes seen."""
        self.objective.begin(self.run.model.head, experience, self.run.seed)

    def training_data(self, experience: Experience) -> ArrayDataset:
        """What the optimisation runs over. Default: the experience's own data."""
        return experience.train

    def parameter_groups(self) -> list[ParameterGroup]:
        """What the optimiser trains, as torch.optim takes it. Default: all that requires a gradient.

        A group may say `lr_factor`: its learning rate is `trainer.lr` times that.
        """
        return [{"params": [p for p in self.run.model.parameters() if p.requires_grad]}]

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a step: cross-entropy plus `penalty()`."""
        loss = self.cross_entropy(self.run.model(batch.images), batch.labels)
        self.log("cross_entropy", loss)
        return loss + self.penalty()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The objective's loss. logits: B × classes seen. labels: B."""
        return self.objective.loss(logits, labels)

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        """Logits over the classes seen, B × classes, for images as the backbone takes them."""
        logits: Tensor = self.run.model(images)
        return logits


def backbone_and_head(model: Model, backbone_factor: float) -> list[ParameterGroup]:
    """What is trained of the backbone, at `backbone_factor` times the learning rate, and the head."""
    head = list(model.head.parameters())
    trained = [p for p in model.backbone.parameters() if p.requires_grad]
    slow: list[ParameterGroup] = [{"params": trained, "lr_factor": backbone_factor}]
    return [*(slow if trained else []), {"params": head}]


class Plugin(Hooks):
    """An addition that combines with any strategy. At every hook it acts after the strategy.

    It may change what the strategy trains on, its loss, its parameter groups and its answers; each plugin
    is given what those before it made of them. `self.run.strategy` is the strategy; of it, a plugin may
    change the objective.
    """

    def training_data(self, data: ArrayDataset, experience: Experience) -> ArrayDataset:
        """What is trained on in place of `data`."""
        return data

    def parameter_groups(self, groups: list[ParameterGroup]) -> list[ParameterGroup]:
        """What the optimiser trains in place of `groups`: fewer, others, or at another `lr_factor`."""
        return groups

    def loss(self, batch: Batch) -> Tensor | float:
        """A term that is added to the strategy's loss."""
        return 0.0

    def around(self, loss: LossOfBatch, batch: Batch) -> Tensor:
        """The strategy's loss, `loss(batch)`, or that of another batch, or something made of it."""
        return loss(batch)

    def answer(self, inputs: Tensor, logits: Tensor) -> Tensor:
        """What is answered for `inputs` in place of the strategy's logits, B × classes."""
        return logits


class Chain:
    """The strategy and, around it, its plugins, the first one innermost."""

    def __init__(self, strategy: Strategy, plugins: Sequence[Plugin] = ()) -> None:
        self.strategy, self.plugins = strategy, tuple(plugins)

    def __iter__(self) -> Iterator[Hooks]:
        return iter((self.strategy, *self.plugins))

    def training_data(self, experience: Experience) -> ArrayDataset:
        """What the optimisation runs over."""
        data = self.strategy.training_data(experience)
        for plugin in self.plugins:
            data = plugin.training_data(data, experience)
        return data

    def order(self, positions: Tensor, data: ArrayDataset) -> Tensor:
        """The order of a pass."""
        for hooks in self:
            positions = hooks.order(positions, data)
        return positions

    def parameter_groups(self) -> list[ParameterGroup]:
        """What the optimiser trains."""
        groups = self.strategy.parameter_groups()
        for plugin in self.plugins:
            groups = plugin.parameter_groups(groups)
        return groups

    def loss(self, batch: Batch) -> Tensor:
        """The scalar loss of a step."""
        loss: LossOfBatch = self.strategy.loss
        for plugin in self.plugins:
            loss = _with(plugin, loss)
        return loss(batch)

    def predict(self, inputs: Tensor, task: int | None = None) -> Tensor:
        """Logits over the classes seen, B × classes."""
        logits = self.strategy.predict(inputs, task)
        for plugin in self.plugins:
            logits = plugin.answer(inputs, logits)
        return logits


def _with(plugin: Plugin, loss: LossOfBatch) -> LossOfBatch:
    def sum_of(batch: Batch) -> Tensor:
        return plugin.around(loss, batch) + plugin.loss(batch) + plugin.penalty()

    return sum_of
