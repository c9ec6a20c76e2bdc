"""Random numbers that depend on nothing but the seed, the purpose and the experience."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, purpose: str, experience: int = 0) -> int:
    """A 63-bit seed for one purpose; the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{experience}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, experience: int = 0) -> torch.Generator:
    """A CPU generator of its own for (seed, purpose, experience)."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, experience))
