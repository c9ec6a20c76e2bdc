"""MOS: adapters that stay close to one another, and a choice among them that corrects itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.data import Batch
from cl.errors import require, require_one_of
from cl.models.adapters import BARE, adapters_of, inject_adapters, reset_adapters
from cl.models.heads import PrototypeHead
from cl.models.model import Model
from cl.models.slots import encode_own_slot, encode_slots
from cl.ops.gaussians import ClassGaussians, align
from cl.ops.mixtures import ClassMixtures
from cl.ops.retrieval import refine
from cl.strategy import ParameterGroup, Strategy
from cl.stream import Experience, StreamInfo

TEMPERATURE = 0.8
CENTRES = 10


class MOS(Strategy):
    """Model surgery (Sun et al., 2025).

    Training. The ViT is frozen; task t trains adapters, starting from those of task t − 1, and a head that
    all tasks share:  L = CE over the current classes + orthogonality · CE(M Mᵀ / 0.8, identity),  M the
    class means of earlier tasks above the batch's features: each row is to be most like itself. After
    every step  A ← (1 − merge) A + merge · (1/t) Σ_{k<t} A_k,  so that choosing a neighbouring task's
    adapter is not a disaster. After the task: one Gaussian per class, and from the second task on the
    head is aligned on samples of all of them.

    Answering. q = cosines with class means in the features of the first task's adapter; the best class
    names a task, that task's adapter and the head give logits z, whose best class names a task, and so on
    until it stays, `rounds` times at most.  p = ½ softmax(z) + ½ softmax(q · (t + 1));  logits are log p.

    bottleneck, scale, dropout: of the adapters. merge: α. merge_mode: "once" per step, as the paper states
    it, or "official", as its code does in effect: once per block before the gradient is taken and once after
    the step, so with twelve blocks  A ← 0.9 (0.9¹² A − η g).  (There the gradient of block l is taken after
    l + 1 of these pulls, here after all.) normalise: false takes raw features for M as the code does; that
    term then grows with the features' length and can drown the rest. prototypes: q in the features of the
    "first" adapter, as in the code, or of the "backbone" without adapters, as in the text. head_factor: the
    head's learning rate relative to the adapters'. alignment_epochs, alignment_samples: passes, and samples
    per class and step (the code takes five batches). alignment_lr, alignment_decay: of its SGD (the code
    decays as in the training). covariance: "full", "diagonal", or "centroids": a diagonal one for each of
    ten centres per class. Stored: adapters per task; mean, covariance and prototype per class. Unlike the
    official code, answering writes nothing (there, every test batch pulls the stored adapters together).
    """

    cost = "a pass for the Gaussians, alignment; at test two passes and more"
    grows = "adapters and class Gaussians"
    tasks: Tensor

    def __init__(
        self,
        bottleneck: int = 16,
        scale: float = 0.1,
        dropout: float = 0.1,
        merge: float = 0.1,
        merge_mode: str = "once",
        orthogonality: float = 0.1,
        normalise: bool = True,
        prototypes: str = "first",
        rounds: int = 4,
        head_factor: float = 0.1,
        alignment_epochs: int = 30,
        alignment_samples: int = 240,
        alignment_lr: float = 0.005,
        alignment_decay: float = 5e-4,
        covariance: str = "full",
    ) -> None:
        super().__init__()
        require_one_of("strategy.merge_mode", merge_mode, ("once", "official"))
        require_one_of("strategy.prototypes", prototypes, ("first", "backbone"))
        require_one_of("strategy.covariance", covariance, ("full", "diagonal", "centroids"))
        require(0 <= merge <= 1, f"strategy.merge={merge}: it must be in [0, 1].")
        require(
            orthogonality >= 0, f"strategy.orthogonality={orthogonality}: it must not be negative."
        )
        for name, count in (("rounds", rounds), ("alignment_samples", alignment_samples)):
            require(count >= 1, f"strategy.{name}={count}: it must be at least 1.")
        self.bottleneck, self.scale, self.dropout = bottleneck, scale, dropout
        self.merge, self.merge_mode, self.rounds = merge, merge_mode, rounds
        self.orthogonality, self.normalise = orthogonality, normalise
        self.prototype_slot = 0 if prototypes == "first" else BARE
        self.head_factor, self.covariance = head_factor, covariance
        self.alignment_epochs, self.alignment_samples = alignment_epochs, alignment_samples
        self.alignment_lr, self.alignment_decay = alignment_lr, alignment_decay

    def setup(self, model: Model, stream: StreamInfo) -> None:
        inject_adapters(model.backbone, self.bottleneck, self.scale, self.dropout)
        self.gaussians: ClassGaussians | ClassMixtures
        if self.covariance == "centroids":
            self.gaussians = ClassMixtures(model.features, CENTRES)
        else:
            self.gaussians = ClassGaussians(model.features, self.covariance == "diagonal")
        self.prototypes = PrototypeHead(model.features)
        self.register_buffer("tasks", torch.zeros(0, dtype=torch.int64))

    def before_experience(self, experience: Experience) -> None:
        require(
            experience.new_classes == experience.classes,
            "strategy=mos: every class must belong to one task, so the stream must be class-incremental.",
        )
        self.grow_head(experience)
        self.tasks = F.pad(self.tasks, (0, len(experience.classes)), value=experience.index)
        if experience.index == 0:
            reset_adapters(self.run.model, self.generator("adapter"))

    def parameter_groups(self) -> list[ParameterGroup]:
        adapters = adapters_of(self.run.model)
        return [
            {"params": [p for adapter in adapters for p in adapter.parameters()]},
            {"params": list(self.run.model.head.parameters()), "lr_factor": self.head_factor},
        ]

    def loss(self, batch: Batch) -> Tensor:
        if self.merge_mode == "official":
            self.pull(times=len(adapters_of(self.run.model)))
        features = self.run.model.encode(batch.images)
        loss = self.cross_entropy(self.run.model.head(features), batch.labels)
        self.log("cross_entropy", loss)
        if not self.orthogonality:
            return loss
        orthogonality = self.unlike_each_other(features)
        self.log("orthogonality", orthogonality)
        return loss + self.orthogonality * orthogonality

    def unlike_each_other(self, features: Tensor) -> Tensor:
        """CE(M Mᵀ / 0.8, identity) of the earlier class means and the features; one number."""
        M = torch.cat([self.gaussians.means.to(features), features])
        if self.normalise:
            M = F.normalize(M, dim=1)
        return F.cross_entropy(M @ M.T / TEMPERATURE, torch.arange(len(M), device=M.device))

    def after_step(self) -> None:
        self.pull(times=1)

    def pull(self, times: int) -> None:
        """Merge the adapters with the mean of their predecessors, so many times."""
        for adapter in adapters_of(self.run.model):
            adapter.pull(1 - (1 - self.merge) ** times)

    @torch.no_grad()
    def after_experience(self, experience: Experience) -> None:
        for adapter in adapters_of(self.run.model):
            adapter.keep()
        self.prototypes.grow(experience.seen)
        parts = []
        for batch in self.batches(experience):
            self.prototypes.update(self.features(batch.images, self.prototype_slot), batch.labels)
            parts.append((self.features(batch.images, experience.index), batch.labels))
        features, labels = torch.cat([f for f, _ in parts]), torch.cat([y for _, y in parts])
        self.gaussians.update(features, labels, experience.seen)
        if experience.index:
            self.log("alignment", self.align(experience.index))

    def align(self, index: int) -> Tensor:
        """Train the head on samples of all classes seen; returns the last loss."""
        return align(
            self.run.model.head,
            self.gaussians,
            F.cross_entropy,
            epochs=self.alignment_epochs,
            samples=self.alignment_samples,
            lr=self.alignment_lr,
            weight_decay=self.alignment_decay,
            generator=self.generator("alignment", index),
        )

    def features(self, images: Tensor, slots: Tensor | int) -> Tensor:
        """Features of each image through its own task's adapter, or of all images through the same."""
        if isinstance(slots, int):
            return encode_slots(self.run.model, images, [slots])[0]
        return encode_own_slot(self.run.model, images, slots)

    def predict(self, images: Tensor, task: int | None = None) -> Tensor:
        q = self.prototypes(self.features(images, self.prototype_slot))
        z = refine(
            self.tasks[q.argmax(1)],
            self.tasks,
            lambda rows, slots: self.run.model.head(self.features(images[rows], slots)),
            self.rounds,
        )
        sharpness = self.tasks.max() + 1
        return ((z.softmax(1) + (q * sharpness).softmax(1)) / 2).log()
