"""Palimpsest: continual learning of pretrained models.

A stream of tasks feeds a pretrained backbone through a continual-adaptation strategy; metrics say
what was learnt and what was forgotten. Importing this package has no side effects: what it offers is
imported when it is first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

PUBLIC = {
    "run": "cl.api",
    "Result": "cl.api",
    "Experiment": "cl.experiment",
    "Learner": "cl.learner",
    "Strategy": "cl.strategy",
    "Plugin": "cl.strategy",
    "Stream": "cl.stream",
    "Experience": "cl.experience",
    "Logger": "cl.loggers",
}
"""What `import cl` offers, and where it is."""

__all__ = ["__version__", *PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'cl' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
