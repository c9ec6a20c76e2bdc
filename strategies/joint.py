"""Joint training: after every experience, start again and train on everything seen so far."""

from __future__ import annotations

import torch

from cl.data import ArrayDataset
from cl.data.archive import Archive
from cl.errors import require
from cl.models.heads import LinearHead
from cl.models.model import Model
from cl.ops.tensors import TensorDict
from cl.strategy import ParameterGroup, Strategy, backbone_and_head
from cl.stream import Experience, StreamInfo


class Joint(Strategy):
    """Joint training (a reference, no paper of its own): no continual learning at all.

    For every experience t the model starts from its initial weights and a new head, and is trained on
    D_1 ∪ … ∪ D_t with cross-entropy over all classes seen. The last row of the accuracy matrix is what
    papers call "joint". Nothing is learnt in a sequence, so forgetting is undefined.

    backbone_factor: the backbone's learning rate relative to the head's; with 0 it is frozen: the joint
    linear probe, to which `frozen` is the sequential one. Stored: a copy of every training image, and
    the initial weights unless they are frozen.
    """

    cost = "all data seen, in each experience"
    rehearsal = True
    grows = "memory"
    loss_classes = "seen"
    sequential = False

    def __init__(self, backbone_factor: float = 1.0) -> None:
        super().__init__()
        require(
            backbone_factor >= 0,
            f"strategy.backbone_factor={backbone_factor}: it must not be negative.",
        )
        self.backbone_factor = backbone_factor
        self.archive = Archive()
        self.initial = TensorDict()

    def setup(self, model: Model, stream: StreamInfo) -> None:
        if self.backbone_factor == 0:
            model.backbone.requires_grad_(False)
            return
        for name, tensor in model.backbone.state_dict().items():
            self.initial[name] = tensor.clone()

    def parameter_groups(self) -> list[ParameterGroup]:
        return backbone_and_head(self.run.model, self.backbone_factor)

    @torch.no_grad()
    def before_experience(self, experience: Experience) -> None:
        self.archive.add(experience.train)
        if self.backbone_factor > 0:
            self.run.model.backbone.load_state_dict(dict(self.initial.items()))
        self.run.model.head = LinearHead(self.run.model.features)
        self.grow_head(experience)

    def training_data(self, experience: Experience) -> ArrayDataset:
        return self.archive.dataset()
