from __future__ import annotations

import numpy as np
import pytest
import torch

from cl.data import ArrayDataset
from cl.data.archive import Archive
from cl.errors import DataError
from tests.conftest import toy_images


def test_it_gives_back_what_was_added_in_order_and_holds_copies() -> None:
    archive, first, second = Archive(), toy_images(6, 3, 0), toy_images(4, 2, 1)
    archive.add(first.subset(np.array([4, 1])))
    archive.add(second)
    images, labels = archive.dataset().take(np.arange(6))
    assert np.array_equal(images[:2], first.images[[4, 1]])
    assert np.array_equal(images[2:], second.images)
    assert labels.tolist() == [first.labels[4], first.labels[1], *second.labels]
    first.images[:] = 0
    second.images[:] = 0
    assert np.array_equal(archive.dataset().images, images), "it holds copies"


def test_the_images_are_state_and_stay_where_they_are() -> None:
    archive = Archive()
    archive.add(toy_images(3, 3, 0))
    assert archive.state_dict()["images"].shape == (3, 8, 8, 3)
    archive.to("meta", torch.float16)
    assert archive.images.device.type == "cpu"
    assert archive.images.dtype == torch.uint8


def test_token_ids_keep_their_type_and_are_not_mixed_with_bytes() -> None:
    archive = Archive()
    ids = np.array([[101, 30521, 0], [101, 7, 102]], dtype=np.int32)
    archive.add(ArrayDataset.of(ids, np.array([0, 1])))
    archive.add(ArrayDataset.of(ids[:1] + 1, np.array([1])))
    assert archive.images.dtype == torch.int32
    assert archive.dataset().take(np.array([1, 2]))[0].tolist() == [[101, 7, 102], [102, 30522, 1]]
    with pytest.raises(DataError, match="holds int32 and was offered uint8"):
        archive.add(toy_images(3, 3, 0))
