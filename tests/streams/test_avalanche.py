"""Avalanche on both sides."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from cl.errors import ConfigurationError, DataError
from cl.stream import Stream
from streams.avalanche import _bytes, avalanche, from_avalanche, to_avalanche
from streams.classes import class_incremental, task_incremental
from streams.domains import rotated
from tests.conftest import toy_stream

pytestmark = pytest.mark.filterwarnings("ignore")


def assert_same_stream(a: Stream, b: Stream) -> None:
    assert a.class_names == b.class_names
    assert a.scenario == b.scenario
    assert len(a) == len(b)
    for mine, theirs in zip((*a.train, *a.test), (*b.train, *b.test), strict=True):
        pairs = [part.take(np.arange(len(part))) for part in (mine, theirs)]
        assert np.array_equal(pairs[0][0], pairs[1][0])
        assert np.array_equal(pairs[0][1], pairs[1][1])


@pytest.mark.parametrize(
    "stream",
    [toy_stream(), class_incremental("digits", 3, order_seed=1), rotated("digits", 2)],
    ids=["toy", "digits", "rotated"],
)
def test_there_and_back_is_the_identity(stream: Stream) -> None:
    assert_same_stream(stream, from_avalanche(to_avalanche(stream), class_names=stream.class_names))


def test_what_avalanche_sees() -> None:
    stream = task_incremental("digits", tasks=5)
    benchmark = to_avalanche(stream)
    second = benchmark.train_stream[1]
    assert second.classes_in_this_experience == {2, 3}
    assert list(second.task_labels) == [1]
    assert list(benchmark.test_stream[4].task_labels) == [4]
    image, label, task = second.dataset[0]
    assert image.shape == (1, 8, 8)
    assert 0 <= image.min() <= image.max() <= 1
    assert label in (2, 3)
    assert task == 1


@pytest.mark.parametrize("name", ["Naive", "Replay", "EWC"])
def test_avalanche_s_strategies_train_on_it(name: str) -> None:
    from avalanche.training import supervised

    torch.manual_seed(0)
    benchmark = to_avalanche(toy_stream(tasks=2))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    extra = {"Replay": {"mem_size": 20}, "EWC": {"ewc_lambda": 0.1}}.get(name, {})
    strategy = getattr(supervised, name)(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        train_epochs=20,
        eval_mb_size=8,
        evaluator=None,
        **extra,
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    data = toy_stream().test[1]
    images, labels = data.take(np.arange(len(data)))
    with torch.no_grad():
        answers = model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).argmax(1)
    assert (answers.numpy() == labels).mean() > 0.9


class Noise(Dataset):
    """Avalanche's own way to a benchmark: images, and targets in any order."""

    def __init__(self, targets: list[int]) -> None:
        self.targets = targets
        self.images = torch.rand(len(targets), 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.targets[index]


def test_a_benchmark_with_a_class_order_and_transforms() -> None:
    from avalanche.benchmarks import nc_benchmark
    from torchvision.transforms import Normalize

    train, test = Noise([0, 1, 2, 3] * 5), Noise([3, 2, 1, 0] * 2)
    benchmark = nc_benchmark(
        train,
        test,
        n_experiences=2,
        task_labels=False,
        fixed_class_order=[3, 1, 2, 0],
        train_transform=Normalize(0.5, 0.5),
        eval_transform=Normalize(0.5, 0.5),
    )
    stream = from_avalanche(benchmark, class_names=list("abcd"))
    assert stream.scenario == "class-incremental"
    assert set(stream.class_names[:2]) == {"d", "b"}
    assert [len(part) for part in (*stream.train, *stream.test)] == [10, 10, 4, 4]
    images, labels = stream.train[0].take(np.arange(10))
    originals = {
        (round(255 * float(image.sum())), "abcd"[label]) for image, label in
        zip(train.images, train.targets, strict=True)
    }  # fmt: skip
    for image, label in zip(images, labels, strict=True):
        total, name = int(image.astype(int).sum()), stream.class_names[label]
        assert any(name == n and abs(total - t) < 30 for t, n in originals)


def write_mnist(folder: Path) -> None:
    """Twenty training and ten test images in the layout that torchvision downloads."""
    folder.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            head = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
            content = head + array.tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(content)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))


def test_a_benchmark_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("CL_DATA_DIR", str(tmp_path))
    stream = avalanche("SplitMNIST", {"n_experiences": 5, "seed": 1})
    assert len(stream) == 5
    assert [len(part) for part in stream.train] == [4] * 5
    images = stream.train[0].take(np.arange(4))[0]
    assert images.shape == (4, 28, 28, 1)
    assert images.max() > 200


def test_mistakes() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean SplitMNIST"):
        avalanche("SplitMNST")
    with pytest.raises(ConfigurationError, match="SplitMNIST has no such argument"):
        avalanche("SplitMNIST", {"experiences": 5})
    with pytest.raises(ConfigurationError, match="CL_DATA_DIR"):
        avalanche("CORe50", {"dataset_root": "somebody's pickles"})
    with pytest.raises(DataError, match="standardised"):
        _bytes(torch.full((3, 2, 2), -1.0))
