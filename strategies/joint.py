"""Joint training: after every experience, start again and train on everything seen so far."""

from __future__ import annotations

import torch

from cl.data import ArrayDataset
from cl.data.archive import Archive
from cl.models.heads import LinearHead
from cl.models.model import Model
from cl.ops.tensors import TensorDict
from cl.strategy import Strategy
from cl.stream import Experience, StreamInfo


class Joint(Strategy):
    """Joint training (a reference, no paper of its own): no continual learning at all.

    For every experience t the model starts from its initial weights and a new head, and is trained on
    D_1 ∪ … ∪ D_t with cross-entropy over all classes seen. The last row of the accuracy matrix is what
    papers call "joint". Nothing is ever forgotten by training in a sequence, so forgetting says nothing
    here. Stored: a copy of every training image, and the initial weights.
    """

    cost = "all data seen, in each experience"
    rehearsal = True
    grows = "memory"
    loss_classes = "seen"

    def __init__(self) -> None:
        super().__init__()
        self.archive = Archive()
        self.initial = TensorDict()

    def setup(self, model: Model, stream: StreamInfo) -> None:
        for name, tensor in model.backbone.state_dict().items():
            self.initial[name] = tensor.clone()

    @torch.no_grad()
    def before_experience(self, experience: Experience) -> None:
        self.archive.add(experience.train)
        self.model.backbone.load_state_dict(dict(self.initial.items()))
        self.model.head = LinearHead(self.model.features)
        self.grow_head(experience)

    def training_data(self, experience: Experience) -> ArrayDataset:
        return self.archive.dataset()
