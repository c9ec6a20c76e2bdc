"""Distil a pretrained ViT-Tiny into the embedded backbone `palimpsest_nano_patch4_32`.

    CL_DATA_DIR=… CL_WEIGHTS_DIR=… python tools/distill_nano.py --work runs/nano

The teacher looks at augmented 64×64 views of unlabelled Tiny-ImageNet images, and at procedural
drawings, enlarged to 144 pixels, where its features are good; the student sees the same views at
32×32. Two stages, both resumable (start the same command again):

1. `cache`: views and the teacher's features are computed once, chunk by chunk, and stored in
   memory-mapped arrays under `--work`.
2. `train`: the student regresses the whitened class token and the patch tokens of the teacher and
   its softened ImageNet predictions. A moving average of its weights is probed on Tiny-ImageNet
   images that neither stage uses, and exported.

Sources: Wei et al. 2022 (whitened features as targets), Xu et al. 2024 (a student initialised from
its teacher's layers), Hinton et al. 2015 (softened predictions), Park et al. 2019 (relations).
No image or label of CIFAR, MNIST or the scikit-learn digits is read here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from rich.progress import track
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cl.models.nano import NANO_NAME, NANO_VERSION, nano_weights

TEACHER = "vit_tiny_patch16_224"
SEED = 20
CHUNK, DRAWN = 500, 60  # views in a chunk, of which procedurally drawn
GLYPHS, COPIES = 2000, 24  # invented characters, and drawings of each
HELD_OUT = 10  # images of each Tiny-ImageNet class kept for the probe
GRID = 4  # the patch tokens are pooled to GRID × GRID


# --------------------------------------------------------------------------------------- images


def tiny_imagenet() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, held-out images and labels; images are uint8 N×3×64×64."""
    folder = Path(os.environ["CL_DATA_DIR"]) / "tiny_imagenet"
    images = torch.from_numpy(np.load(folder / "train_images.npy")).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.load(folder / "train_labels.npy"))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    order = order[labels[order].argsort(stable=True)].view(int(labels.max()) + 1, -1)
    held, kept = order[:, :HELD_OUT].flatten(), order[:, HELD_OUT:].flatten()
    return images[kept], labels[kept], images[held], labels[held]


def resize(images: Tensor, side: int) -> Tensor:
    """uint8 images, enlarged or reduced (bicubic, antialiased), as floats in [-1, 1]."""
    floats = F.interpolate(
        images.float() / 255, (side, side), mode="bicubic", antialias=True, align_corners=False
    )
    return floats.clamp(0, 1) * 2 - 1


def _colour(rng: np.random.Generator, grey: bool) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return (red, red, red) if grey else (red, green, blue)


def _curve(rng: np.random.Generator, side: int) -> list[tuple[float, float]]:
    """A cubic Bézier curve, an arc or a broken line inside a square."""
    kind = rng.integers(3)
    t = np.linspace(0, 1, 24)[:, None]
    if kind == 0:
        p = rng.uniform(0.1, 0.9, (4, 2))
        xy = (1 - t) ** 3 * p[0] + 3 * (1 - t) ** 2 * t * p[1] + 3 * (1 - t) * t**2 * p[2]
        xy = xy + t**3 * p[3]
    elif kind == 1:
        angle = rng.uniform(0, 2 * math.pi) + t * rng.uniform(1.5, 6.6)
        xy = rng.uniform(0.3, 0.7, 2) + rng.uniform(0.08, 0.35, 2) * np.hstack(
            [np.cos(angle), np.sin(angle)]
        )
    else:
        xy = rng.uniform(0.1, 0.9, (rng.integers(2, 5), 2))
    return [(float(x), float(y)) for x, y in xy * side]


def _texture(rng: np.random.Generator, side: int) -> Image.Image:
    """Coloured noise or a sum of waves, sometimes made binary."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, side)] * 2))
    waves = rng.normal(0, rng.uniform(2, 12), (rng.integers(1, 6), 2)) * 2 * math.pi
    field = np.cos(np.einsum("kc,chw->khw", waves, grid) + rng.uniform(0, 6, (len(waves), 1, 1)))
    values = field.mean(0) + rng.uniform(0, 0.5) * rng.normal(size=(side, side))
    values = np.sign(values) if rng.random() < 0.3 else values / (np.abs(values).max() + 1e-6)
    low, high = rng.uniform(0, 255, (2, 3))
    mixed = low + (high - low) * (values[..., None] + 1) / 2
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def draw(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """One procedural image, uint8 side×side×3: strokes, shapes or a texture, on any background."""
    big, grey = 2 * side, rng.random() < 0.6
    back = _colour(rng, grey)
    if rng.random() < 0.5:  # ink on paper and chalk on slate are the commonest line drawings
        back = (0, 0, 0) if rng.random() < 0.7 else (255, 255, 255)
    canvas = Image.new("RGB", (big, big), back)
    if rng.random() < 0.2:
        canvas = _texture(rng, big)
    pen = ImageDraw.Draw(canvas)
    ink = _colour(rng, grey) if back[0] not in (0, 255) else tuple(255 - c for c in back)
    if rng.random() < 0.7:
        width = int(rng.integers(4, 22))
        for _ in range(rng.integers(1, 5)):
            pen.line(_curve(rng, big), fill=ink, width=width, joint="curve")
    else:
        for _ in range(rng.integers(1, 6)):
            x, y = sorted(rng.uniform(0, big, 2)), sorted(rng.uniform(0, big, 2))
            shape = (pen.ellipse, pen.rectangle)[rng.integers(2)]
            if rng.random() < 0.3:
                pen.polygon(_curve(rng, big), fill=_colour(rng, grey))
            else:
                shape((x[0], y[0], x[1], y[1]), fill=_colour(rng, grey))
    if rng.random() < 0.3:  # low resolution, as in small scans
        low = int(rng.integers(8, 24))
        canvas = canvas.resize((low, low), Image.Resampling.BOX)
    canvas = canvas.resize((side, side), Image.Resampling.BICUBIC)
    if rng.random() < 0.2:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2)))
    return np.asarray(canvas)


def glyph(rng: np.random.Generator) -> list[np.ndarray]:
    """An invented character: one to three strokes, each a list of points in the unit square."""
    strokes = [np.array(_curve(rng, 1)) for _ in range(rng.integers(1, 4))]
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    return [(stroke - (low + high) / 2) / max(*(high - low), 0.3) for stroke in strokes]


def write(strokes: list[np.ndarray], rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """The glyph as some hand would write it: uint8 side×side×3.

    Size, slant, rotation, place, a smooth distortion, the pen, the colours and the resolution vary.
    """
    big = 4 * side
    angle, slant = rng.normal(0, 0.15), rng.normal(0, 0.2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    affine = turn @ np.array([[1, slant], [0, 1]]) @ np.diag(rng.uniform(0.55, 0.95, 2))
    waves, phase = rng.normal(0, 1.5, (2, 2)), rng.uniform(0, 2 * math.pi, 2)
    centre = 0.5 + rng.uniform(-0.08, 0.08, 2)
    back, ink = (0, 0, 0), (255, 255, 255)
    if rng.random() < 0.4:
        back, ink = _colour(rng, grey=False), _colour(rng, grey=False)
    canvas = Image.new("RGB", (big, big), back)
    pen, width = ImageDraw.Draw(canvas), int(rng.uniform(0.05, 0.16) * big)
    for stroke in strokes:
        points = stroke @ affine.T
        points = points + 0.06 * np.sin(math.pi * points @ waves + phase) + centre
        pen.line([(x * big, y * big) for x, y in points], fill=ink, width=width, joint="curve")
    if rng.random() < 0.4:
        low = int(rng.integers(7, 20))
        canvas = canvas.resize((low, low), Image.Resampling.BOX)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BICUBIC))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Strongly augmented views of float images in [0, 1], N×3×S×S, every draw from `generator`.

    Crop of 30 to 100 % of the area, flip, a rotation for a third; brightness, contrast, saturation
    and colour balance; grey for an eighth; an eighth is mixed with another image, an eighth gets a
    rectangle of another.
    """
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    scale, stretch = uniform(0.3, 1).sqrt(), uniform(-0.25, 0.25).exp()
    width, height = (scale * stretch).clamp(max=1), (scale / stretch).clamp(max=1)
    angle = torch.where(uniform(0, 1) < 1 / 3, uniform(-0.35, 0.35), torch.zeros(n))
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    rows = [
        [width * angle.cos() * flip, -height * angle.sin(), (1 - width) * uniform(-1, 1)],
        [width * angle.sin() * flip, height * angle.cos(), (1 - height) * uniform(-1, 1)],
    ]
    affine = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    x = F.grid_sample(images, grid, "bicubic", "reflection", align_corners=False).clamp(0, 1)

    grey = x.mean(1, keepdim=True)
    saturation = torch.where(uniform(0, 1) < 1 / 8, torch.zeros(n), uniform(0.4, 1.6))
    x = grey + (x - grey) * saturation[:, None, None, None]
    x = x * uniform(0.85, 1.15, 3, 1, 1) * uniform(0.6, 1.4, 1, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * uniform(0.6, 1.4, 1, 1, 1)).clamp(0, 1)
    return _mix(x, generator)


def _mix(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blend an eighth of the images with a partner, paste a rectangle of it into another eighth."""
    n, side = len(x), x.shape[-1]
    partner = x[torch.randperm(n, generator=generator)]
    weight = torch.rand(n, 1, 1, 1, generator=generator) / 2
    centre = torch.rand(n, 2, 1, generator=generator)
    half = torch.rand(n, 2, 1, generator=generator) * 0.25 + 0.1
    inside = (torch.linspace(0, 1, side) - centre).abs() < half  # N×2×S: rows, columns
    pasted = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None].float()
    choice = torch.rand(n, 1, 1, 1, generator=generator)
    share = torch.where(choice < 1 / 8, weight, torch.where(choice < 1 / 4, pasted, 0.0))
    return x + share * (partner - x)


# ---------------------------------------------------------------------------------------- cache


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


# ---------------------------------------------------------------------------------------- train


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters of the training stage."""

    steps: int = 3800
    batch: int = 128
    written: int = 16  # glyphs in a batch, besides the views; two drawings of each
    rate: float = 1.5e-3
    warm_up: int = 300
    weight_decay: float = 0.05
    shrinkage: float = 1.0  # of the whitening, in units of a standardised feature's variance
    temperature: float = 1.0  # of the softened predictions
    direction: float = 2.0  # weights of the losses, in the order of `losses`
    value: float = 1.0
    local: float = 0.5
    prediction: float = 1.0
    relation: float = 0.3
    glyph: float = 0.08
    average: float = 0.998  # decay of the moving average of the weights
    layers: str = "0,1,2,3"  # the teacher's blocks that the student starts from; "" for random


class Targets(nn.Module):
    """Teacher features → standardised, ZCA-whitened class token; standardised patch tokens; logits.

    With C the correlation matrix of the class token's 192 features, the whitened token is
    (C + shrinkage)^(-1/2) (f - mean) / deviation, scaled to a mean variance of one. Class means are
    better separated by their angles there than among the raw features.
    """

    def __init__(self, features: np.ndarray, head: nn.Linear, shrinkage: float) -> None:
        super().__init__()
        self.head = head.requires_grad_(False)
        sample = torch.from_numpy(features[:: max(1, len(features) // 20_000)]).double()
        token, patches = sample[:, 0], sample[:, 1:].flatten(0, 1)
        deviation = token.std(0)
        values, vectors = torch.linalg.eigh(torch.corrcoef(token.T))
        root = vectors @ torch.diag((values + shrinkage).rsqrt()) @ vectors.T
        root *= ((values / (values + shrinkage)).mean()).rsqrt()
        self.register_buffer("mean", token.mean(0).float())
        self.register_buffer("deviation", deviation.float())
        self.register_buffer("whiten", (root / deviation).T.float())
        self.register_buffer("patch_mean", patches.mean(0).float())
        self.register_buffer("patch_deviation", patches.std(0).float())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        token, patches = features[:, 0], features[:, 1:]
        whitened = (token - self.mean) @ self.whiten
        return whitened, (patches - self.patch_mean) / self.patch_deviation, self.head(token)


class Student(nn.Module):
    """The nano backbone, and two linear maps that are dropped afterwards."""

    def __init__(self, targets: Targets) -> None:
        super().__init__()
        self.backbone = timm.create_model(NANO_NAME)
        self.local = nn.Linear(192, 192)
        nn.init.zeros_(self.local.weight)
        self.classifier = nn.Linear(192, 1000)
        with torch.no_grad():  # the teacher's own head, written in the whitened coordinates
            weight = torch.linalg.solve(targets.whiten, targets.head.weight.T).T
            self.classifier.weight.copy_(weight)
            self.classifier.bias.copy_(targets.head(targets.mean))

    def inherit(self, teacher: nn.Module, layers: list[int]) -> None:
        """Start from some of the teacher's blocks; embeddings are resampled to 4-pixel patches."""
        state = {name: value for name, value in teacher.state_dict().items() if "head" not in name}
        own = {name: value for name, value in state.items() if "blocks." not in name}
        for place, layer in enumerate(layers):
            prefix = f"blocks.{layer}."
            for name, value in state.items():
                if name.startswith(prefix):
                    own[f"blocks.{place}.{name.removeprefix(prefix)}"] = value
        self.backbone.load_state_dict(checkpoint_filter_fn(own, self.backbone))

    @torch.no_grad()
    def standardise(self, views: Tensor) -> None:
        """Rescale the last norm so that the class token starts on the scale of the targets."""
        token, norm = self.backbone(views), self.backbone.norm
        deviation = token.std(0)
        norm.weight /= deviation
        norm.bias.copy_((norm.bias - token.mean(0)) / deviation)


@dataclass
class Batch:
    """Views and teacher features of N views; then two drawings of each of M glyphs."""

    views: Tensor  # (N+2M)×3×32×32 in [-1, 1]; the last 2M are drawings, M first, M second ones
    features: Tensor  # N×(1+GRID²)×192


LOSSES = ("direction", "value", "local", "prediction", "relation", "glyph")


def losses(student: Student, targets: Targets, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """The losses, unweighted, each a mean over the batch.

    direction: 1 - cosine to the whitened class token; value: its mean squared error; local: mean
    squared error of the patch tokens through a linear map; prediction: Kullback-Leibler divergence
    of the softened ImageNet predictions; relation: mean squared difference of the N×N cosines, ×10;
    glyph: cross-entropy of finding a drawing's partner among the others by 10 × the cosine, which
    asks that the hand, the pen and the colours matter less than what is drawn.
    """
    n, t = len(batch.features), recipe.temperature
    token, patches, logits = targets(batch.features)
    out = tokens(student.backbone, batch.views)
    own, own_patches = out[:n, 0].float(), student.local(out[:n, 1:]).float()
    own_logits = student.classifier(out[:n, 0]).float()
    own_log, log = F.log_softmax(own_logits / t, 1), F.log_softmax(logits / t, 1)
    cosines = [F.normalize(x, dim=1) @ F.normalize(x, dim=1).T for x in (own, token)]
    drawn = F.normalize(out[n:, 0].float(), dim=1)
    among = (10 * drawn @ drawn.T).float().fill_diagonal_(-math.inf)
    partner = torch.arange(len(drawn), device=drawn.device).roll(len(drawn) // 2)
    return {
        "direction": 1 - F.cosine_similarity(own, token).mean(),
        "value": F.mse_loss(own, token),
        "local": F.mse_loss(own_patches, patches),
        "prediction": t * t * F.kl_div(own_log, log, reduction="batchmean", log_target=True),
        "relation": 10 * F.mse_loss(cosines[0], cosines[1]),
        "glyph": F.cross_entropy(among, partner),
    }


class Batches:
    """The batch of a step; the views of half of the batches are mirrored.

    The order is a fresh permutation each epoch and depends on the step alone.
    """

    def __init__(self, cache: Cache, written: np.ndarray, recipe: Recipe, device: torch.device):
        self.cache, self.written, self.recipe, self.device = cache, written, recipe, device
        self.epoch, self.order = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> Batch:
        total, size = self.cache.chunks * CHUNK, self.recipe.batch
        epoch, place = divmod(step, total // size)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([SEED, epoch]).permutation(total)
        rows = np.sort(self.order[place * size : (place + 1) * size])
        views = torch.from_numpy(self.cache.views[rows])
        features = torch.from_numpy(self.cache.features[rows]).to(self.device).float()
        rng = np.random.default_rng([SEED, 1, step])
        if rng.random() < 0.5:
            grid = features[:, 1:].unflatten(1, (GRID, GRID)).flip(2).flatten(1, 2)
            views, features = views.flip(3), torch.cat([features[:, :1], grid], 1)
        kinds = np.tile(rng.choice(GLYPHS, self.recipe.written, replace=False), 2)
        drawn = self.written[kinds, rng.integers(COPIES, size=len(kinds))]
        views = torch.cat([views, torch.from_numpy(drawn)]).to(self.device).float() / 127.5 - 1
        return Batch(views, features)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < recipe.warm_up:
        return recipe.rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.rate * (1 + math.cos(math.pi * done)) / 2


def nearest_mean(x: Tensor, labels: Tensor, held: Tensor, held_labels: Tensor) -> float:
    """Accuracy in per cent of the class mean with the largest cosine."""
    means = F.normalize(F.one_hot(labels).float().T @ F.normalize(x, dim=1), dim=1)
    return round(100 * ((held @ means.T).argmax(1) == held_labels).float().mean().item(), 2)


def ridge(x: Tensor, labels: Tensor, held: Tensor, held_labels: Tensor) -> float:
    """Accuracy in per cent of a ridge regression of the labels on standardised features."""
    mean, deviation, onehot = x.mean(0), x.std(0) + 1e-6, F.one_hot(labels).float()
    x, held = (x - mean) / deviation, (held - mean) / deviation
    gram = x.T @ x + 0.1 * len(x) * torch.eye(x.shape[1])
    weight = torch.linalg.solve(gram, x.T @ (onehot - onehot.mean(0)))
    return round(100 * ((held @ weight).argmax(1) == held_labels).float().mean().item(), 2)


PROBES = ("nearest_mean", "ridge", "glyphs")


class Probe:
    """Classifiers on features of Tiny-ImageNet images and glyphs that neither stage uses.

    200 classes with `shots` training and 10 held-out images; 100 glyphs with 10 and 10 drawings.
    """

    def __init__(self, folder: Path, device: torch.device, shots: int = 50) -> None:
        kept, labels, held, held_labels = tiny_imagenet()
        rows = torch.arange(len(labels)).view(int(labels.max()) + 1, -1)[:, :shots].flatten()
        drawn = torch.from_numpy(np.array(glyphs(folder, 100, 20, seed=1)))
        self.images = [resize(kept[rows], 32), resize(held, 32)]
        self.images += [resize(part.flatten(0, 1), 32) for part in (drawn[:, :10], drawn[:, 10:])]
        self.labels = (labels[rows], held_labels)
        self.kinds = torch.arange(100).repeat_interleave(10)
        self.device = device

    @torch.inference_mode()
    def __call__(self, backbone: nn.Module) -> dict[str, float]:
        backbone.eval()
        with autocast(self.device):
            x, held, drawn, held_drawn = (
                torch.cat([backbone(part.to(self.device)).float().cpu() for part in s.split(200)])
                for s in self.images
            )
        labels, held_labels = self.labels
        scores = (
            nearest_mean(x, labels, held, held_labels),
            ridge(x, labels, held, held_labels),
            nearest_mean(drawn, self.kinds, held_drawn, self.kinds),
        )
        return dict(zip(PROBES, scores, strict=True))


class Run:
    """Everything that a checkpoint holds, and the files of one training run."""

    def __init__(self, folder: Path, recipe: Recipe, student: Student, device: torch.device):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe, self.student = folder, recipe, student
        matrices = [p for p in student.parameters() if p.ndim > 1]
        vectors = [p for p in student.parameters() if p.ndim < 2]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.averaged = timm.create_model(NANO_NAME).to(device)
        self.averaged.load_state_dict(student.backbone.state_dict())
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        if (folder / "checkpoint.pt").exists():
            self._load()

    def average(self) -> None:
        """Move the averaged weights towards the student's; faster at the start."""
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        own = [p.detach() for p in self.student.backbone.parameters()]
        torch._foreach_lerp_([p.data for p in self.averaged.parameters()], own, 1 - decay)

    def log(self, **entry: float) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, **entry}) + "\n")

    def save(self) -> None:
        parts = {"student": self.student, "averaged": self.averaged, "optimizer": self.optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": self.step, "best": self.best, "seconds": self.seconds}
        torch.save(state, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").replace(self.folder / "checkpoint.pt")

    def _load(self) -> None:
        state = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        for name in ("student", "averaged", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        log = self.folder / "log.jsonl"  # forget what came after the checkpoint
        lines = [line for line in log.open() if json.loads(line)["step"] <= self.step]
        log.write_text("".join(lines))


def train(run: Run, batches: Batches, targets: Targets, probe: Probe, minutes: float) -> None:
    """Train to `recipe.steps`, or stop after `minutes` with a checkpoint from which it goes on."""
    recipe, started, before = run.recipe, time.monotonic(), run.seconds
    for step in track(range(run.step, recipe.steps), "distilling"):
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        batch = batches(step)
        with autocast(batch.views.device):
            parts = losses(run.student, targets, batch, recipe)
        total = torch.stack([getattr(recipe, name) * parts[name] for name in LOSSES]).sum()
        run.optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(run.student.parameters(), 5.0)
        run.optimizer.step()
        run.step = step + 1
        run.average()
        run.seconds = before + time.monotonic() - started
        if run.step % 50 == 0:
            run.log(seconds=round(run.seconds), **{k: round(v.item(), 4) for k, v in parts.items()})
        late = run.seconds - before > 60 * minutes
        if run.step % 500 == 0 or run.step == recipe.steps or late:
            check(run, probe)
        if late:
            break


def check(run: Run, probe: Probe) -> None:
    """Probe the averaged weights, keep them if they are the best so far, write a checkpoint."""
    scores = probe(run.averaged)
    run.log(seconds=round(run.seconds), **scores)
    if sum(scores.values()) > run.best:
        run.best = sum(scores.values())
        export(run.averaged, run.folder / "best.safetensors")
    run.save()


def export(backbone: nn.Module, path: Path) -> None:
    """Half-precision safetensors with the version in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.half().contiguous().cpu() for name, value in backbone.state_dict().items()}
    metadata = {"version": NANO_VERSION, "timm_model": NANO_NAME, "teacher": TEACHER}
    save_file(state, path, metadata=metadata)
    path.chmod(0o644)


def plot(log: Path) -> None:
    """Curves of the losses and of the probes over the steps, next to the log."""
    entries = [json.loads(line) for line in log.open()]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for panel, names in zip(panels, (LOSSES, PROBES), strict=True):
        for name in names:
            points = [(entry["step"], entry[name]) for entry in entries if name in entry]
            panel.plot(*zip(*points, strict=True), label=name)
        panel.set_xlabel("step")
        panel.legend(fontsize="small")
    panels[0].set(title="losses", yscale="log")
    panels[1].set(title="held-out probes of the averaged weights, %", ylim=0)
    figure.savefig(log.with_name("curves.png"), dpi=110)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="cache, checkpoints and logs")
    parser.add_argument("--name", default="main", help="the training run's folder inside --work")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop training after these")
    parser.add_argument("--chunks", type=int, default=280, help=f"chunks of {CHUNK} cached views")
    parser.add_argument("--side", type=int, default=144, help="the teacher's input, in pixels")
    parser.add_argument("--install", action="store_true", help="copy the best weights into cl/")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()


def main() -> None:
    options = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = Recipe(**{name: getattr(options, name) for name in asdict(Recipe())})
    cache = Cache(options.work / "cache", options.chunks)
    if cache.done < cache.chunks:
        build_cache(cache, options.side, device)
    written = glyphs(options.work / "cache", GLYPHS, COPIES, seed=0)
    batches = Batches(cache, written, recipe, device)
    teacher = load_teacher(options.side, device)
    targets = Targets(cache.features, teacher.head, recipe.shrinkage).to(device)
    torch.manual_seed(SEED)
    student = Student(targets).to(device)
    if recipe.layers:
        student.inherit(teacher, [int(layer) for layer in recipe.layers.split(",")])
    student.standardise(batches(0).views)
    run = Run(options.work / options.name, recipe, student, device)
    replace_text(run.folder / "recipe.json", json.dumps(asdict(recipe), indent=2) + "\n")
    train(run, batches, targets, Probe(options.work / "cache", device), options.minutes)
    plot(run.folder / "log.jsonl")
    if options.install:
        state = load_file(run.folder / "best.safetensors")
        run.averaged.load_state_dict(state)
        export(run.averaged, nano_weights())


if __name__ == "__main__":
    main()
