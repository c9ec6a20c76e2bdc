"""Training and evaluation on a GPU, against a bare loop and against the device's matrix products.

    python benchmarks/gpu.py

`vit_base` at 224 pixels in bf16, compiled, on CIFAR-100's shape (random uint8 images of 32 × 32 pixels,
enlarged on the device). The bare loop keeps its images on the device. Reported: images a second, the
share of the measured rate of matrix products that the network's own operations reach, and our loop's
time over the bare loop's. Everything is warmed up once, so that compilation is not counted. `--device
cpu --quick` tries the program out with nano.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from jobs import compose, crop_and_flip, network, stream, tensors
from timing import Claim, interleave, parse, parser, ratio, report
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cl.data import ArrayDataset
from cl.learner import Learner
from cl.models.nano import NANO_NAME
from cl.stream import Stream


def wait(device: torch.device) -> None:
    """Until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, side: int) -> float:
    """Operations a second of bf16 matrix products, the median of twenty."""
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    taken = []
    for _ in range(25):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        taken.append(time.perf_counter() - start)
    return 2 * side**3 / median(taken[5:])


def operations(name: str, side: int) -> float:
    """Of one image's forward pass."""
    model = network(name, 100, img_size=side).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 3, side, side))
    return float(counter.get_total_flops())


class Bare:
    """The same by hand: images and labels lie on the device, the model is compiled."""

    def __init__(self, data: Stream, name: str, options: argparse.Namespace) -> None:
        self.device, self.side, self.batch = options.on, options.side, options.batch
        self.train, self.test = (
            [tensor.to(self.device) for tensor in tensors(part)]
            for part in (data.train[0], data.test[0])
        )
        self.model: nn.Module = network(name, 100, img_size=self.side).to(self.device)
        self.forward = torch.compile(self.model) if options.compile else self.model
        fused = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=fused)

    def prepare(self, pixels: Tensor) -> Tensor:
        """uint8 B × H × W × C to what the network takes."""
        x = pixels.permute(0, 3, 1, 2).float()
        if x.shape[-1] != self.side:
            x = F.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp(
                0, 255
            )
        return ((x / 255 - 0.5) / 0.5).contiguous()

    def learn(self) -> None:
        """One epoch with crop and flip."""
        pixels, labels = self.train
        generator = torch.Generator(self.device).manual_seed(0)
        order = torch.randperm(len(labels), generator=generator, device=self.device)
        self.model.train()
        for rows in order.split(self.batch):
            x = self.prepare(crop_and_flip(pixels[rows], generator))
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = F.cross_entropy(self.forward(x), labels[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        wait(self.device)

    @torch.no_grad()
    def evaluate(self) -> None:
        """The logits of all test images, on the CPU."""
        self.model.eval()
        with torch.autocast(self.device.type, torch.bfloat16):
            parts = [self.forward(self.prepare(p)).float() for p in self.test[0].split(self.batch)]
        torch.cat(parts).cpu()


def ours(data: Stream, options: argparse.Namespace) -> Learner:
    """A learner that fine-tunes everything; nothing of it is frozen, so nothing is cached."""
    chosen = ["backbone=nano"] if options.quick else ["backbone=vit_base"]
    chosen += ["backbone.pretrained=false", f"backbone.image_size={options.side}", "strategy=naive"]
    chosen += [f"trainer.device={options.device}", "trainer.precision=bf16", "trainer.lr=1e-4"]
    chosen += [f"trainer.batch_size={options.batch}"]
    chosen += [f"trainer.evaluation_batch_size={options.batch}"]
    chosen += [f"trainer.compile={str(options.compile).lower()}"]
    return Learner(compose(*chosen), data.info, "crop_flip")


def main(options: argparse.Namespace) -> None:
    """Training and evaluation of both, in turn."""
    device = options.on = torch.device(options.device)
    options.compile = not options.quick
    options.batch, options.side = (8, 32) if options.quick else (256, 224)
    count, name = (32, NANO_NAME) if options.quick else (20_000, "vit_base_patch16_224")
    data = stream(count, 1, 100 if not options.quick else 10)
    learner, bare = ours(data, options), Bare(data, name, options)
    test: ArrayDataset = data.test[0]

    def waited(work: Callable[[], object]) -> Callable[[], Callable[[], None]]:
        def run() -> None:
            work()
            wait(device)

        return lambda: run

    jobs = {
        "training, ours": waited(lambda: learner.learn_experience(data.experience(0))),
        "training, bare": waited(bare.learn),
        "evaluation, ours": waited(lambda: learner.logits(test)),
        "evaluation, bare": waited(bare.evaluate),
    }
    seconds = interleave(jobs, options.repetitions)
    rate = matrix_rate(device, 256 if options.quick else 8192)
    forward = operations(name, options.side)
    claims = [
        Claim(
            f"{kind}, our time over the bare loop's",
            ratio(seconds, f"{kind}, ours", f"{kind}, bare"),
            limit,
        )
        for kind, limit in (("training", 1.05), ("evaluation", None))
    ]
    for job, taken in seconds.items():
        training = job.startswith("training")
        speed = (len(data.train[0]) if training else len(test)) / median(taken)
        claims.append(Claim(f"images a second, {job}", speed))
        used = speed * forward * (3 if training else 1) / rate
        claims.append(Claim(f"share of the rate of matrix products, {job}", used))
    report(
        options,
        claims,
        seconds,
        model=name,
        images=count,
        batch_size=options.batch,
        matrix_operations_per_second=rate,
        forward_operations_per_image=forward,
        compiled=options.compile,
    )


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu with --quick")
    given = parse(made)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(
            "error: PyTorch finds no GPU here, and this program is about one. "
            "To try out the program itself: python benchmarks/gpu.py --device cpu --quick"
        )
    if given.device == "cpu" and not given.quick:
        sys.exit("error: --device cpu only with --quick: vit_base would take hours.")
    main(given)
