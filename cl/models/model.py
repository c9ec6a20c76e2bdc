"""A backbone and a head: what a strategy adapts."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from cl.data.cache import FeatureCache
from cl.data.loading import Images, as_tensor
from cl.data.transforms import Transform
from cl.models.backbone import Backbone
from cl.models.frozen import Fingerprint, frozen_prefix, run_prefix, run_rest
from cl.models.heads import Head, LinearHead
from cl.models.reachable import check_adapters
from cl.models.slots import SlotNames
from cl.parallel import Ranks


class Model(nn.Module):
    """`backbone` turns images into features, `head` turns features into logits.

    Strategies may replace the head or inject adapters into the backbone. What is frozen of the backbone is
    computed once for each image, if there is a `cache`.
    """

    def __init__(self, backbone: Backbone, cache: FeatureCache | None = None) -> None:
        super().__init__()
        self.backbone = backbone.module
        self.head: Head = LinearHead(backbone.features)
        self.transform: Transform = backbone.transform
        self.features: int = backbone.features
        self.pretrained: str = backbone.pretrained
        self.cache = cache
        self.fingerprint, self.base_fingerprint = Fingerprint(), Fingerprint()
        self.slot_names = SlotNames()
        self.trained: set[int] | None = None
        self.checked: set[int] = set()
        self.ranks = Ranks()

    def train(self, mode: bool = True) -> Model:
        """As in any module, but a batch norm of which nothing is trained keeps its averages."""
        super().train(mode)
        for layer in self.modules():
            weights = list(layer.parameters()) if isinstance(layer, _NormBase) else []
            if weights and not any(weight.requires_grad for weight in weights):
                layer.eval()
        return self

    def set_trained(self, trained: set[int]) -> None:
        """Tell which parameters, by id, are trained from now on; all others may be taken for frozen.

        ConfigurationError if some are in an adapter that the backbone does not use.
        """
        check_adapters(self.backbone, trained - self.checked, self.example())
        self.checked |= trained
        self.trained = trained
        self.weights_changed()

    def example(self) -> Tensor:
        """The smallest batch that the backbone takes, of zeros."""
        device = next(self.parameters()).device
        return torch.zeros(1, 3, self.transform.size, self.transform.size, device=device)

    def weights_changed(self) -> None:
        """Something may have been written to the weights."""
        for known in (self.fingerprint, self.base_fingerprint, self.slot_names):
            known.forget()

    def forward(self, images: Tensor) -> Tensor:
        """float32 B × 3 × S × S to logits over the classes seen, B × classes."""
        logits: Tensor = self.head(self.encode(images))
        return logits

    def encode(self, images: Tensor) -> Tensor:
        """float32 B × 3 × S × S (or `cl.data.loading.Images`) to the backbone's features, B × features."""
        return self.ranks.split(images, self._encode)

    def _encode(self, images: Tensor) -> Tensor:
        if not isinstance(images, Images) or self.cache is None or self.trained is None:
            return self._whole(as_tensor(images))
        prefix = frozen_prefix(self.backbone, self.trained)
        if prefix is None:
            return self._whole(images.tensor)
        tokens = self.cache.features(
            self.key(prefix, images.on, self.fingerprint),
            images,
            lambda part: run_prefix(self.backbone, prefix, part),
        )
        return run_rest(self.backbone, prefix, tokens)

    def _whole(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images)
        return features

    def key(self, parts: list[nn.Module], device: torch.device, fingerprint: Fingerprint) -> str:
        """Everything but the image that the features of these parts of the backbone depend on."""
        cast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
        weights = fingerprint.of(self.backbone, parts)
        return hashlib.sha256(f"{weights} {self.transform} {cast}".encode()).hexdigest()[:32]
