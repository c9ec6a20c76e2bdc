"""First-session adaptation: a backbone is adapted to the first task with a head that is thrown away."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator

from cl.models.adapters import adapters_of, reset_adapters
from cl.models.heads import CosineHead, Head
from cl.models.model import Model


def begin_first_session(model: Model, classes: int, generator: Callable[[str], Generator]) -> Head:
    """Start the adapters anew, with a cosine head for them to learn with; returns the model's own head."""
    own, model.head = model.head, CosineHead(model.features)
    model.head.grow(classes, generator("head"))
    reset_adapters(model, generator("adapter"))
    return own


def end_first_session(model: Model, own: Head) -> None:
    """Give the model its own head back, and keep what the adapters have learnt as their first slot."""
    model.head = own
    for adapter in adapters_of(model):
        adapter.keep()
