"""Stage 1: views, the teacher's features of them, and written glyphs, computed once and kept."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import load_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from nano.drawings import draw, glyph, write
from nano.views import SEED, augment, resize, tiny_imagenet

TEACHER = "vit_tiny_patch16_224"
CHUNK, DRAWN = 500, 60  # views in a chunk, of which procedurally drawn
GLYPHS, COPIES = 2000, 24  # invented characters, and drawings of each
GRID = 4  # the patch tokens are pooled to GRID × GRID


class Cache:
    """Views (uint8, V×3×32×32) and teacher features (float16, V×(1+GRID²)×192), memory-mapped."""

    def __init__(self, folder: Path, chunks: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        n = chunks * CHUNK
        self.views = _memmap(folder / "views.npy", np.uint8, (n, 3, 32, 32))[:n]
        shape = (n, 1 + GRID * GRID, 192)
        self.features = _memmap(folder / "features.npy", np.float16, shape)[:n]
        self.counter = folder / "chunks_done"
        self.chunks = chunks

    @property
    def done(self) -> int:
        return int(self.counter.read_text()) if self.counter.exists() else 0

    def write(self, chunk: int, views: Tensor, features: Tensor) -> None:
        rows = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        self.views[rows] = views.numpy()
        self.features[rows] = features.half().numpy()
        replace_text(self.counter, str(chunk + 1))


def glyphs(folder: Path, kinds: int, copies: int, seed: int) -> np.ndarray:
    """Written glyphs, uint8 kinds×copies×3×32×32, drawn once and kept in the folder."""
    path = folder / f"glyphs_{kinds}_{copies}_{seed}.npy"
    if not path.exists():
        drawn = np.empty((kinds, copies, 32, 32, 3), np.uint8)
        for kind in track(range(kinds), "glyphs"):
            rng = np.random.default_rng([SEED, seed, kind])
            strokes = glyph(rng)
            drawn[kind] = [write(strokes, rng) for _ in range(copies)]
        np.save(path, drawn.transpose(0, 1, 4, 2, 3))
    return np.load(path, mmap_mode="r")


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, whenever the program is killed."""
    path.with_suffix(".tmp").write_text(text)
    path.with_suffix(".tmp").replace(path)


def _memmap(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    if path.exists():
        return np.load(path, mmap_mode="r+")
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def load_teacher(side: int, device: torch.device) -> nn.Module:
    """The teacher for images of `side` pixels, with its 1000-way head."""
    teacher = timm.create_model(TEACHER, img_size=side)
    state = load_file(Path(os.environ["CL_WEIGHTS_DIR"]) / f"{TEACHER}.safetensors")
    teacher.load_state_dict(checkpoint_filter_fn(state, teacher))
    return teacher.eval().requires_grad_(False).to(device)


def tokens(model: nn.Module, images: Tensor) -> Tensor:
    """The class token and the patch tokens pooled to GRID×GRID, after the last norm: N×17×D."""
    out = model.forward_features(images)
    patches = out[:, 1:].transpose(1, 2).unflatten(2, (math.isqrt(out.shape[1] - 1), -1))
    pooled = F.adaptive_avg_pool2d(patches, GRID).flatten(2).transpose(1, 2)
    return torch.cat([out[:, :1], pooled], 1)


def build_cache(cache: Cache, side: int, device: torch.device) -> None:
    """Fill what is missing; a chunk depends on its number alone, so a restart changes nothing."""
    images, *_ = tiny_imagenet()
    teacher = load_teacher(side, device)
    natural = CHUNK - DRAWN
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED + 1))
    for chunk in track(range(cache.done, cache.chunks), "teacher features"):
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + chunk)
        rng = np.random.default_rng([SEED, chunk])
        rows = order[torch.arange(chunk * natural, (chunk + 1) * natural) % len(order)]
        views = (augment(images[rows].float() / 255, generator) * 255).round().byte()
        drawn = torch.from_numpy(np.stack([draw(rng) for _ in range(DRAWN)]))
        views = torch.cat([views, drawn.permute(0, 3, 1, 2)])
        with torch.inference_mode(), autocast(device):
            large = resize(views.to(device), side)
            features = torch.cat([tokens(teacher, part) for part in large.split(100)])
        small = ((resize(views, 32) + 1) / 2 * 255).round().byte()
        cache.write(chunk, small, features.float().cpu())


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16: twice as fast as float32 on a GPU and on CPUs with AVX512-BF16."""
    return torch.autocast(device.type, torch.bfloat16)
