"""The start of a backbone that nothing trains: found, hashed, and computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from cl.models.anatomy import Chain

PLAIN = ("torch.nn.", "timm.")
"""Where modules are from that do nothing but what their weights say."""


def frozen_prefix(backbone: nn.Module, trained: set[int]) -> list[nn.Module] | None:
    """The modules of the longest start of `backbone` that gives the same for the same image, or None.

    trained: the ids of the parameters that are trained. All of the backbone, or the embeddings and some of
    the first blocks of a vision transformer.
    """
    if is_frozen(backbone, trained):
        return [backbone]
    chain = Chain.of(backbone)
    if chain is None:
        return None
    own = [p for p in backbone.parameters(recurse=False) if id(p) in trained]
    if own or is_watched(backbone) or not all(is_frozen(part, trained) for part in chain.embed):
        return None
    blocks: list[nn.Module] = []
    for block in chain.blocks:
        if not is_frozen(block, trained):
            break
        blocks.append(block)
    return [*chain.embed, *blocks] if blocks else None


def is_frozen(module: nn.Module, trained: set[int]) -> bool:
    """Whether `module` gives the same for the same input as long as its tensors are the same."""
    return not any(id(p) in trained for p in module.parameters()) and not any(
        is_watched(part) or is_random(part) or not type(part).__module__.startswith(PLAIN)
        for part in module.modules()
    )


def is_watched(module: nn.Module) -> bool:
    """Whether somebody sees, or changes, what goes through."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_random(module: nn.Module) -> bool:
    """Whether the module draws random numbers or updates statistics as it is."""
    if not module.training:
        return False
    drops = getattr(module, "p", 0) or getattr(module, "drop_prob", 0) or getattr(module, "prob", 0)
    return bool(drops) or isinstance(module, nn.modules.batchnorm._NormBase)


def run_prefix(backbone: nn.Module, prefix: list[nn.Module], images: Tensor) -> Tensor:
    """What the frozen start gives: features B × D if it is everything, else tokens B × T × D."""
    with torch.no_grad():
        if prefix == [backbone]:
            features: Tensor = backbone(images)
            return features
        chain = Chain(backbone)
        tokens = chain.tokens(images)
        for block in prefix[len(chain.embed) :]:
            tokens = block(tokens)
        return tokens


def run_rest(backbone: nn.Module, prefix: list[nn.Module], tokens: Tensor) -> Tensor:
    """Features B × D from what `run_prefix` gave."""
    if prefix == [backbone]:
        return tokens
    chain = Chain(backbone)
    for block in chain.blocks[len(prefix) - len(chain.embed) :]:
        tokens = block(tokens)
    return chain.features(tokens)


class Fingerprint:
    """The hash of a prefix, taken again only when a tensor may have changed."""

    def __init__(self) -> None:
        self.seen: tuple[tuple[int, int], ...] = ()
        self.value = ""

    def of(self, backbone: nn.Module, prefix: list[nn.Module]) -> str:
        """A hash of what the prefix is and of all tensors in it."""
        tensors = list(prefix_tensors(backbone, prefix))
        state = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        if not self.value or state != self.seen:
            digest = hashlib.sha256(f"{torch.__version__} {tensors[0].device.type}".encode())
            for part in prefix:
                digest.update(repr(part).encode())
            for tensor in tensors:
                digest.update(content(tensor))
            self.seen, self.value = state, digest.hexdigest()[:32]
        return self.value

    def forget(self) -> None:
        """Take the hash again next time: a write through `.data` leaves no trace."""
        self.value = ""


def content(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, for a hash."""
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return flat.numpy().data


def prefix_tensors(backbone: nn.Module, prefix: list[nn.Module]) -> Iterator[Tensor]:
    """All parameters and buffers that the prefix uses."""
    whole = prefix == [backbone]
    own = () if whole else backbone.parameters(recurse=False)
    return chain(own, *(chain(part.parameters(), part.buffers()) for part in prefix))
