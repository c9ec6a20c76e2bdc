from __future__ import annotations

import numpy as np
import torch

from cl.data.archive import Archive
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
