from __future__ import annotations

import torch

from cl.learner import Learner
from tests.conftest import Compose, toy_stream


def test_all_classes_push_the_old_ones_down_and_current_ones_do_not(compose: Compose) -> None:
    """The two cross-entropies that papers call naive, on a frozen backbone where only they differ."""
    stream, logits = toy_stream(), {}
    for classes in ("current", "seen"):
        cfg = compose("strategy=naive", f"strategy.classes={classes}", "trainer.lr=1e-2")
        learner = Learner(cfg, stream.info)
        learner.model.backbone.requires_grad_(False)
        learner.learn(stream.experience(0))
        before = learner.logits(stream.test[0])
        learner.learn(stream.experience(1))
        logits[classes] = learner.logits(stream.test[0])[:, :2] - before
    unchanged = torch.zeros_like(
        logits["current"]
    )  # up to the order of summation in a larger product
    torch.testing.assert_close(logits["current"], unchanged, rtol=0, atol=1e-5)
    assert (logits["seen"] < -0.1).all(), (
        "every image of the first task looks less like its classes"
    )
