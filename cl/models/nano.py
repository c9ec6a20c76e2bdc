"""The embedded backbone: a small ViT for 32×32 images whose weights come with the package.

It is a stock timm `VisionTransformer`, so every adapter that finds its place in a timm ViT
(`attn.qkv`, `attn.proj`, `mlp.fc1`, `mlp.fc2`, `cls_token`, `pos_embed`) finds it here.
`docs/nano.md` is its model card, `tools/distill_nano.py` the program that made the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

NANO_NAME = "palimpsest_nano_patch4_32"
NANO_VERSION = "1.0"
"""Written into the weights' metadata; raised whenever the weights change."""


def nano_weights() -> Path:
    """The packaged weights: half-precision safetensors with `version` in their metadata."""
    return Path(__file__).parent / "weights" / f"{NANO_NAME}.safetensors"


def palimpsest_nano_patch4_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Four blocks of width 192 over 8×8 patches and a class token: 1.8 million parameters.

    It takes N×3×32×32 images, normalised with mean = std = 0.5, and pools them into N×192 features
    (`num_classes=0`). `img_size` resamples the position embedding.
    """
    architecture = {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 4, "num_heads": 3}
    return build_model_with_cfg(
        VisionTransformer,
        NANO_NAME,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        **(architecture | kwargs),
    )


# timm reads this name when the model is registered.
default_cfgs = generate_default_cfgs(
    {
        f"{NANO_NAME}.distilled": {
            "file": str(nano_weights()),
            "num_classes": 0,
            "input_size": (3, 32, 32),
            "pool_size": None,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "fixed_input_size": True,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "apache-2.0",
        }
    }
)
register_model(palimpsest_nano_patch4_32)
