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
import sys
import time
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import timm
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nano.cache import (
    CHUNK,
    COPIES,
    GLYPHS,
    TEACHER,
    Cache,
    autocast,
    build_cache,
    glyphs,
    load_teacher,
    replace_text,
)
from nano.distillation import LOSSES, Batches, Recipe, Student, Targets, losses
from nano.probes import PROBES, Probe
from nano.views import SEED

from cl.models.nano import NANO_NAME, NANO_VERSION, nano_weights


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


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < recipe.warm_up:
        return recipe.rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.rate * (1 + math.cos(math.pi * done)) / 2


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
