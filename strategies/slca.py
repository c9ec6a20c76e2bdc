"""SLCA: the backbone learns slowly, and the classifier is aligned after every task."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.errors import require
from cl.models.model import Model
from cl.ops.gaussians import ClassGaussians, align
from cl.strategy import ParameterGroup, Strategy, backbone_and_head
from cl.stream import Experience, StreamInfo


class SLCA(Strategy):
    """Slow learner with classifier alignment (Zhang et al., 2023).

    Slow learner: everything is trained with cross-entropy over the current classes, the backbone at
    backbone_factor times the head's learning rate; the rows of other classes stay as they are.
    Alignment, from the second experience on: the whole head is trained on samples of all classes' Gaussians
    N(s_c μ_c, Σ_c + 10⁻⁴ I) with s_c = 0.9 + 0.1 (t_c + 1) / (t + 1), t_c the task that brought class c, by
    cross-entropy on  z / n / temperature,  n = mean over tasks of ‖z of the task's classes‖₂.
    The aligned head only answers; the next experience goes on from the head before alignment.

    alignment_epochs, alignment_samples: passes, and samples per class and step. alignment_lr,
    alignment_decay: of its SGD. Stored per class: mean, covariance, and its row before alignment.
    """

    cost = "a pass for the Gaussians, alignment"
    grows = "class Gaussians"
    trained_weight: Tensor
    trained_bias: Tensor
    tasks: Tensor

    def __init__(
        self,
        backbone_factor: float = 0.01,
        alignment_epochs: int = 5,
        alignment_samples: int = 256,
        alignment_lr: float = 0.01,
        alignment_decay: float = 5e-4,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        require(temperature > 0, f"strategy.temperature={temperature}: it must be positive.")
        require(
            backbone_factor >= 0,
            f"strategy.backbone_factor={backbone_factor}: it must not be negative.",
        )
        require(
            alignment_samples >= 1,
            f"strategy.alignment_samples={alignment_samples}: it must be at least 1.",
        )
        self.backbone_factor, self.temperature = backbone_factor, temperature
        self.alignment_epochs, self.alignment_samples = alignment_epochs, alignment_samples
        self.alignment_lr, self.alignment_decay = alignment_lr, alignment_decay

    def setup(self, model: Model, stream: StreamInfo) -> None:
        self.gaussians = ClassGaussians(model.features)
        self.register_buffer("trained_weight", torch.zeros(0, model.features))
        self.register_buffer("trained_bias", torch.zeros(0))
        self.register_buffer("tasks", torch.zeros(0, dtype=torch.int64))

    @torch.no_grad()
    def before_experience(self, experience: Experience) -> None:
        if experience.index:
            self.run.model.head.weight.copy_(self.trained_weight)
            self.run.model.head.bias.copy_(self.trained_bias)
        self.grow_head(experience)
        self.note_head()
        added = experience.seen - len(self.tasks)
        self.tasks = F.pad(self.tasks, (0, added), value=experience.index)

    def note_head(self) -> None:
        """Copy the head as it is before alignment."""
        self.trained_weight = self.run.model.head.weight.detach().clone()
        self.trained_bias = self.run.model.head.bias.detach().clone()

    def parameter_groups(self) -> list[ParameterGroup]:
        return backbone_and_head(self.run.model, self.backbone_factor)

    @torch.no_grad()
    def after_step(self) -> None:
        """Undo what weight decay did to the rows of other classes; they have no gradient."""
        other, head = self.objective.mask.isinf(), self.run.model.head
        head.weight.copy_(torch.where(other[:, None], self.trained_weight, head.weight))
        head.bias.copy_(torch.where(other, self.trained_bias, head.bias))

    @torch.no_grad()
    def after_experience(self, experience: Experience) -> None:
        self.note_head()
        parts = [(self.run.model.encode(b.images), b.labels) for b in self.batches(experience)]
        features, labels = torch.cat([f for f, _ in parts]), torch.cat([y for _, y in parts])
        self.gaussians.update(features, labels, experience.seen)
        if experience.index == 0:
            return
        loss = align(
            self.run.model.head,
            self.gaussians,
            lambda z, y: F.cross_entropy(self.normalise(z), y),
            epochs=self.alignment_epochs,
            samples=self.alignment_samples,
            lr=self.alignment_lr,
            weight_decay=self.alignment_decay,
            generator=self.generator("alignment", experience.index),
            mean_scale=self.mean_scale(experience.index),
        )
        self.log("alignment", loss)

    def mean_scale(self, index: int) -> Tensor:
        """s_c for each class: the means of older tasks are drawn in, for the backbone has moved on."""
        return 0.9 + 0.1 * (self.tasks + 1) / (index + 1)

    def normalise(self, logits: Tensor) -> Tensor:
        """Logits of every image divided by the mean over tasks of the length of the task's logits.

        A cross-entropy over one class teaches nothing, so the row of a task of one class may still be zero.
        A root has no gradient there: such a length is a constant, and an image of zeros only is not divided.
        """
        squares = logits.new_zeros(len(logits), int(self.tasks.max()) + 1)
        squares = squares.index_add(1, self.tasks, logits.square())
        lengths = torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)
        norm = lengths.mean(1, keepdim=True)
        return logits / torch.where(norm > 0, norm, 1.0) / self.temperature
