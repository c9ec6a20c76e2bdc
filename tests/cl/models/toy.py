"""A ViT of three narrow blocks with random weights, always the same ones."""

from __future__ import annotations

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

WIDTH = 24


def vit(size: int = 8) -> VisionTransformer:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        pretrained=False,
        num_classes=0,
        img_size=size,
        patch_size=4 if size == 8 else 16,
        embed_dim=WIDTH,
        depth=3,
        num_heads=2,
    )
    assert isinstance(model, VisionTransformer)
    return model.eval()
