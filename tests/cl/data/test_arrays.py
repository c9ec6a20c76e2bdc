from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cl.data import ArrayDataset, Order, Transform, batches, index_batches
from cl.data.arrays import load_array
from cl.errors import DataError
from tests.conftest import toy_images


def test_subsets_share_the_images() -> None:
    data = toy_images(12, 3, 0)
    part = data.subset(np.array([3, 5, 7])).subset(np.array([2, 0]))
    assert part.images is data.images
    assert list(part.rows) == [7, 3]
    images, labels = part.take(np.array([0, 1]))
    assert np.array_equal(images, data.images[[7, 3]])
    assert list(labels) == [1, 0]
    assert list(part.targets) == [1, 0]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 3)), np.zeros(2, int), "uint8"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, int), "N × H × W"),
        (np.zeros((2, 4, 4, 2), np.uint8), np.zeros(2, int), "1 or 3"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int), "2 images, but 3 labels"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2), "whole numbers"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 1), int), "one per image"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array(1), "one per image"),
    ],
)
def test_arrays_that_do_not_fit(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ArrayDataset.of(images, labels)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        load_array(tmp_path / "no.npy")
    np.save(tmp_path / "whole.npy", np.zeros((100, 8, 8, 3), np.uint8))
    content = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:1000])
    with pytest.raises(DataError, match=r"cut.npy cannot be read"):
        load_array(tmp_path / "cut.npy")
    (tmp_path / "empty.npy").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        load_array(tmp_path / "empty.npy")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        load_array(tmp_path / "objects.npy")


def test_batches_cover_everything_once() -> None:
    assert [list(b) for b in index_batches(5, 2)] == [[0, 1], [2, 3], [4]]
    shuffled = [b for b, _ in Order(torch.Generator().manual_seed(0)).batches(50, 8)]
    order = np.concatenate(shuffled)
    assert sorted(order) == list(range(50))
    assert list(order) != list(range(50))


def test_a_batch_is_ready_for_the_backbone() -> None:
    data = toy_images(10, 2, 0)
    transform = Transform(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    (batch,) = batches(data, transform, 16, torch.device("cpu"))
    assert batch.images.shape == (10, 3, 16, 16)
    assert batch.images.dtype == torch.float32
    assert torch.equal(batch.labels, torch.from_numpy(data.targets))


def test_texts_are_int32_token_ids_with_a_label_each() -> None:
    ids = np.arange(12, dtype=np.int32).reshape(4, 3)
    data = ArrayDataset.of(ids, np.arange(4)).subset(np.array([2, 0]))
    assert data.take(np.array([0]))[0].tolist() == [[6, 7, 8]]
    with pytest.raises(DataError, match="4 texts, but 3 labels"):
        ArrayDataset.of(ids, np.arange(3))
    for other in (ids.astype(np.int64), ids.astype(np.uint8), ids[:, :, None]):
        with pytest.raises(DataError, match="images must be uint8"):
            ArrayDataset.of(other, np.arange(4))
