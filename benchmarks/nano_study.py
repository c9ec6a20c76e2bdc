"""How good are the features of the embedded backbone? Nearest class mean and linear probes.

    CL_DATA_DIR=… CL_WEIGHTS_DIR=… python benchmarks/nano_study.py --work runs/nano_study --speed

compares nano, the same network at random, and `vit_tiny_patch16_224` at several resolutions, on
CIFAR-100, MNIST and the scikit-learn digits, all training images, no augmentation. Features are
cached in `--work`, so a run that was stopped goes on. The table is printed; everything is in the
JSON file of `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cl.models.nano import NANO_NAME, NANO_VERSION, nano_weights

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SPLIT_SEED = 0  # of the digits' test set and of the images on which the weight decay is chosen


# ----------------------------------------------------------------------------------------- data


def cifar100() -> Arrays:
    """50,000 + 10,000 images of 32×32×3, 100 classes."""
    folder = Path(os.environ["CL_DATA_DIR"]) / "cifar100"
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return tuple(np.load(folder / f"{name}.npy") for name in names)


def mnist() -> Arrays:
    """60,000 + 10,000 images of 28×28, grey."""
    folder = Path(os.environ["CL_DATA_DIR"]) / "MNIST" / "raw"

    def read(name: str, header: int) -> np.ndarray:
        return np.frombuffer((folder / name).read_bytes(), np.uint8, offset=header)

    parts: list[np.ndarray] = []
    for part in ("train", "t10k"):
        parts.append(read(f"{part}-images-idx3-ubyte", 16).reshape(-1, 28, 28))
        parts.append(read(f"{part}-labels-idx1-ubyte", 8))
    return tuple(parts)


def digits() -> Arrays:
    """1,437 + 360 images of 8×8, grey; a stratified split with a fixed seed."""
    data = load_digits()
    images = (data.images * (255 / 16)).round().astype(np.uint8)
    train, test, train_labels, test_labels = train_test_split(
        images, data.target, test_size=0.2, stratify=data.target, random_state=SPLIT_SEED
    )
    return train, train_labels, test, test_labels


DATA: dict[str, Callable[[], Arrays]] = {"cifar100": cifar100, "digits": digits, "mnist": mnist}


# --------------------------------------------------------------------------------------- models


def build(name: str) -> nn.Module:
    """`nano`, `nano_random_SEED` or `vit_tiny_SIDE`, without a head."""
    if name.startswith("vit_tiny_"):
        model = timm.create_model(
            "vit_tiny_patch16_224", num_classes=0, img_size=int(name.removeprefix("vit_tiny_"))
        )
        file = Path(os.environ["CL_WEIGHTS_DIR"]) / "vit_tiny_patch16_224.safetensors"
        state = {k: v for k, v in load_file(file).items() if not k.startswith("head.")}
        model.load_state_dict(checkpoint_filter_fn(state, model))
    elif name == "nano":
        model = timm.create_model(NANO_NAME)
        model.load_state_dict(load_file(nano_weights()))
    else:
        torch.manual_seed(int(name.removeprefix("nano_random_")))
        model = timm.create_model(NANO_NAME)
    return model.eval()


def preprocess(images: np.ndarray, model: nn.Module) -> Tensor:
    """uint8 N×H×W(×3) → the model's input: resized (bicubic, antialiased) and normalised."""
    pixels = torch.from_numpy(images).float() / 255
    pixels = (
        pixels[:, None].expand(-1, 3, -1, -1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    )
    side = model.patch_embed.img_size
    pixels = F.interpolate(pixels, side, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    return (pixels - mean) / std


def cached(name: str, data: str, options: Options) -> str:
    """The start of the names of a pair's cached files; nano's change with its weights."""
    version = f"_{nano_weights().stat().st_mtime_ns}" if name == "nano" else ""
    return f"{name}{version}_{options.precision}_{data}"


def features(name: str, data: str, images: np.ndarray, part: str, options: Options) -> Tensor:
    """N×D pooled features, float32; computed once and kept in `--work`."""
    path = options.work / f"{cached(name, data, options)}_{part}.npy"
    if not path.exists():
        model, out = build(name), []
        half = options.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            for start in track(range(0, len(images), 200), f"{name}, {data}, {part}"):
                out.append(model(preprocess(images[start : start + 200], model)).float())
        np.save(path, torch.cat(out).numpy())
    return torch.from_numpy(np.load(path))


# --------------------------------------------------------------------------------------- probes


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Per cent."""
    return round(100 * (scores.argmax(1) == labels).float().mean().item(), 2)


def nearest_mean(x: Tensor, y: Tensor, test: Tensor, test_y: Tensor) -> float:
    """Cosine to the mean of each class's normalised features."""
    onehot = F.one_hot(y).float()
    means = F.normalize(onehot.T @ F.normalize(x, dim=1), dim=1)
    return accuracy(test @ means.T, test_y)


def fit(x: Tensor, y: Tensor, decay: float) -> nn.Linear:
    """Multinomial logistic regression, cross-entropy + decay/2 · |W|², by L-BFGS from zero."""
    layer = nn.Linear(x.shape[1], int(y.max()) + 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=150, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(x), y) + decay / 2 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer


def linear_probe(x: Tensor, y: Tensor, test: Tensor, test_y: Tensor) -> tuple[float, float]:
    """Test accuracy on standardised features, and the weight decay, chosen on a tenth of `x`."""
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x, test = (x - mean) / deviation, (test - mean) / deviation
    fitted, chosen = train_test_split(
        np.arange(len(y)), test_size=0.1, stratify=y.numpy(), random_state=SPLIT_SEED
    )
    held = {d: accuracy(fit(x[fitted], y[fitted], d)(x[chosen]), y[chosen]) for d in DECAYS}
    decay = max(held, key=lambda d: held[d])
    return accuracy(fit(x, y, decay)(test), test_y), decay


# ---------------------------------------------------------------------------------------- speed


def best_rate(work: Callable[[], object], images: int, repeats: int) -> int:
    """Images a second of the fastest repetition, after one to warm up."""
    work()
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        rates.append(images / (time.perf_counter() - start))
    return round(max(rates))


def speed(batch: int = 64, repeats: int = 12) -> dict[str, int]:
    """float32 images a second: forward, and a whole AdamW step with a head of 100 classes."""
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(100, (batch,))
    model = timm.create_model(NANO_NAME, num_classes=100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    training = best_rate(step, batch, repeats)
    model.eval()
    with torch.inference_mode():
        forward = best_rate(lambda: model(images), batch, repeats)
    return {"batch": batch, "repeats": repeats, "forward": forward, "training": training}


# --------------------------------------------------------------------------------------- report


def processor() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def environment(options: Options) -> dict[str, object]:
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "nano": NANO_VERSION,
        "feature_precision": options.precision,
        "split_seed": SPLIT_SEED,
    }


def show(results: list[dict[str, object]]) -> None:
    table = Table("features", "data", "nearest class mean %", "linear probe %", "weight decay")
    for row in results:
        keys = ("model", "data", "nearest_mean", "linear_probe", "decay")
        table.add_row(*(str(row[key]) for key in keys))
    Console().print(table)


def row(name: str, data: str, options: Options) -> dict[str, object]:
    """One line of the table, computed once and kept in `--work`."""
    path = options.work / f"{cached(name, data, options)}.json"
    if not path.exists():
        images, labels, test_images, test_labels = DATA[data]()
        y, test_y = (torch.from_numpy(part.astype(np.int64)) for part in (labels, test_labels))
        x = features(name, data, images, "train", options)
        test = features(name, data, test_images, "test", options)
        probe, decay = linear_probe(x, y, test, test_y)
        scores = {"nearest_mean": nearest_mean(x, y, test, test_y), "linear_probe": probe}
        path.write_text(json.dumps({"model": name, "data": data, **scores, "decay": decay}))
    return dict(json.loads(path.read_text()))


class Options(argparse.Namespace):
    work: Path
    out: Path
    models: list[str]
    data: list[str]
    precision: str
    speed: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = ["nano", "nano_random_0", "vit_tiny_64", "vit_tiny_96"]
    parser.add_argument("--work", type=Path, required=True, help="where features are cached")
    parser.add_argument("--out", type=Path, help="JSON file; default: nano_study.json in --work")
    parser.add_argument("--models", nargs="+", default=models, help=build.__doc__)
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--speed", action="store_true", help="measure images a second as well")
    options = parser.parse_args(namespace=Options())
    options.work.mkdir(parents=True, exist_ok=True)
    report: dict[str, object] = {"environment": environment(options)}
    if options.speed:
        report["speed"] = speed()
    report["results"] = results = [
        row(name, data, options) for data in options.data for name in options.models
    ]
    show(results)
    out = options.out or options.work / "nano_study.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
