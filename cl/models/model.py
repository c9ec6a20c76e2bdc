"""A backbone and a head: what a strategy adapts."""

from __future__ import annotations

from torch import Tensor, nn

from cl.data.transforms import Transform
from cl.models.backbone import Backbone
from cl.models.heads import CosineHead, LinearHead, PrototypeHead, RidgeHead

Head = LinearHead | PrototypeHead | CosineHead | RidgeHead


class Model(nn.Module):
    """`backbone` turns images into features, `head` turns features into logits.

    Strategies may replace the head or inject adapters into the backbone.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.module
        self.head: Head = LinearHead(backbone.features)
        self.transform: Transform = backbone.transform
        self.features: int = backbone.features
        self.pretrained: str = backbone.pretrained

    def forward(self, images: Tensor) -> Tensor:
        """float32 B × 3 × S × S to logits over the classes seen, B × classes."""
        logits: Tensor = self.head(self.backbone(images))
        return logits
