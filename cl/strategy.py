"""What a strategy or a plugin overrides. A new method is one class in one file; nothing registers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cl.config import TrainerConfig
from cl.data.arrays import Array, ArrayDataset
from cl.data.loading import Batch, batches
from cl.data.transforms import augment
from cl.models.model import Model
from cl.random import generator
from cl.stream import Experience, StreamInfo

ParameterGroup = dict[str, Any]


class Hooks(nn.Module):
    """The moments of a run that a method can act on. Each hook does nothing unless overridden.

    A method's state lives in its buffers, parameters and submodules, so that a checkpoint needs no
    code of its own. `self.model` is the learner's model; it is not part of the method's state.

    cost: what it computes besides fine-tuning's steps, or instead of them, for a table.
    """

    cost: ClassVar[str] = ""
    model: Model

    def __init__(self) -> None:
        super().__init__()

    def attach(
        self,
        model: Model,
        seed: int,
        device: torch.device,
        batch_size: int,
        augmentation: str = "none",
        trainer: TrainerConfig | None = None,
    ) -> None:
        """Tell the method which model it acts on, and how images are fed to it.

        seed: its random choices derive from it. batch_size: of passes without gradient.
        augmentation: of training images, a key of `cl.data.AUGMENTATIONS`. trainer: how the run trains.
        """
        object.__setattr__(self, "model", model)  # a reference: nn.Module would adopt it as a child
        self.seed, self.device, self.batch_size = seed, device, batch_size
        self.augmentation, self.trainer = augmentation, trainer or TrainerConfig()
        self.logged: dict[str, Tensor] = {}

    def log(self, name: str, value: Tensor) -> None:
        """Report a number of this step, such as a part of the loss."""
        self.logged[name] = value.detach()

    def generator(self, purpose: str, experience: int = 0) -> Generator:
        """A CPU generator of its own for this purpose and experience."""
        return generator(self.seed, f"{type(self).__name__}/{purpose}", experience)

    def batches(self, experience: Experience, limit: int | None = None) -> Iterator[Batch]:
        """One pass over the training data, un-augmented; over `limit` random images of them, if given."""
        data = experience.train
        if limit is not None and limit < len(data):
            order = torch.randperm(len(data), generator=self.generator("subset", experience.index))
            data = data.subset(order[:limit].sort().values.numpy())
        return batches(data, self.model.transform, self.batch_size, self.device)

    def prepare(self, images: Array | Tensor, order: Generator | None = None) -> Tensor:
        """uint8 B × H × W × C as the backbone takes them; augmented if there is a generator."""
        pixels = torch.as_tensor(images).to(self.device)
        if order is not None:
            pixels = augment(pixels, self.augmentation, order)
        return self.model.transform(pixels)

    def setup(self, model: Model, stream: StreamInfo) -> None:
        """Once, before the first experience: inject adapters, replace the head."""

    def before_experience(self, experience: Experience) -> None:
        """Before each experience: grow the head, add an adapter, choose what is trained."""

    def before_training(self, steps: int) -> None:
        """Before the first step of an experience, when the number of its steps is known."""

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
    loss_classes: the classes that the cross-entropy is over, "current" or all "seen".
    """

    rehearsal: ClassVar[bool] = False
    needs_task_id: ClassVar[bool] = False
    grows: ClassVar[str] = "head"
    gradient_free: bool = False
    own_loop: ClassVar[bool] = False
    sequential: ClassVar[bool] = True
    stored_elsewhere: int = 0
    neutral: ClassVar[dict[str, Any] | None] = None
    loss_classes: Literal["current", "seen"] = "current"
    class_mask: Tensor

    def before_experience(self, experience: Experience) -> None:
        """Grow the head to the classes seen."""
        self.grow_head(experience)

    def grow_head(self, experience: Experience) -> None:
        """Grow the head to the classes seen, and note over which of them the cross-entropy is."""
        # Not self.generator: random rows (CosineHead's) must be the same whatever the method.
        self.model.head.grow(experience.seen, generator(self.seed, "head", experience.index))
        mask = torch.zeros(experience.seen)
        if self.loss_classes == "current":
            mask.fill_(-torch.inf)[list(experience.classes)] = 0.0
        self.register_buffer("class_mask", mask, persistent=False)

    def training_data(self, experience: Experience) -> ArrayDataset:
        """What the optimisation runs over. Default: the experience's own data."""
        return experience.train

    def parameter_groups(self) -> list[ParameterGroup]:
        """What the optimiser trains, as torch.optim takes it. Default: all that requires a gradient.

        A group may say `lr_factor`: its learning rate is `trainer.lr` times that.
        """
        return [{"params": [p for p in self.model.parameters() if p.requires_grad]}]

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a step: cross-entropy plus `penalty()`."""
        loss = self.cross_entropy(self.model(batch.images), batch.labels)
        self.log("cross_entropy", loss)
        return loss + self.penalty()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over `loss_classes`. logits: B × classes seen. labels: B."""
        return F.cross_entropy(logits + self.class_mask, labels)

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        """Logits over the classes seen, B × classes, for images as the backbone takes them."""
        logits: Tensor = self.model(images)
        return logits


def backbone_and_head(model: Model, backbone_factor: float) -> list[ParameterGroup]:
    """What is trained of the backbone, at `backbone_factor` times the learning rate, and the head."""
    head = list(model.head.parameters())
    trained = [p for p in model.backbone.parameters() if p.requires_grad]
    slow: list[ParameterGroup] = [{"params": trained, "lr_factor": backbone_factor}]
    return [*(slow if trained else []), {"params": head}]


class Plugin(Hooks):
    """An addition that combines with any strategy. It acts after the strategy at every hook."""

    def loss(self, batch: Batch) -> Tensor | float:
        """A term that is added to the strategy's loss."""
        return 0.0
