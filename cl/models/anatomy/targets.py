"""From the words that a user writes under `targets` to the layers of a network, and their replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from cl.errors import require, suggest
from cl.models.anatomy.families import CATEGORIES, FUSED, ROLES
from cl.models.anatomy.places import Anatomy, is_adapter
from cl.models.matrices import MatrixLayer, is_matrix


@dataclass(frozen=True)
class Target:
    """A layer that is to be adapted.

    parts: into how many matrices of one height it falls. rows: those that are meant; None is all.
    """

    layer: MatrixLayer
    parts: int
    rows: tuple[slice, ...] | None

    @property
    def chosen(self) -> list[int]:
        """The numbers of the matrices that are meant."""
        if self.rows is None:
            return list(range(self.parts))
        return sorted(rows.start // (rows.stop - rows.start) for rows in self.rows)


def find_targets(network: nn.Module, targets: Sequence[str]) -> dict[str, Target]:
    """The layers of one matrix that `targets` mean, by name.

    A target is a role ("q", "fc1"), a category ("attention", "mlp") or the end of a layer's name
    ("attn.proj", "conv2"); q, k and v of a fused layer are rows of it, and "attn.qkv:q,v" picks them by
    name. A word that the network has as a role is that. ConfigurationError if a target means nothing here.
    """
    anatomy = Anatomy(network)
    matrices = _matrices(anatomy)
    chosen: dict[str, list[slice] | None] = {}
    for target in targets:
        for name, rows in _meant(anatomy, target).items():
            before = chosen.get(name, [])
            if rows is None or before is None:
                chosen[name] = None
            else:
                chosen[name] = before + [part for part in rows if part not in before]
    return {
        name: Target(matrices[name], len(anatomy.parts(name)) or 1, None if r is None else tuple(r))
        for name, r in chosen.items()
    }


def _meant(anatomy: Anatomy, target: str) -> dict[str, list[slice] | None]:
    """The layers that one target means, and which rows of them; None is all."""
    word, _, parts = target.partition(":")
    roles = CATEGORIES.get(word, (word,) if word in ROLES else ())
    # qkv in one matrix if the network has that, else in three
    found = _with_role(anatomy, roles) or _with_role(anatomy, FUSED.get(word, ()))
    found = found or _with_name(anatomy, word)
    require(bool(found), _nothing(anatomy, word))
    return {name: _rows(anatomy, name, parts) for name in found} if parts else found


def _matrices(anatomy: Anatomy) -> dict[str, MatrixLayer]:
    """The layers that are one matrix and not inside a layer that stands for them."""
    return {
        name: layer
        for name, layer in anatomy.modules.items()
        if is_matrix(layer) and not is_adapter(anatomy.modules[name.rpartition(".")[0]])
    }


def _with_role(anatomy: Anatomy, roles: Sequence[str]) -> dict[str, list[slice] | None]:
    found: dict[str, list[slice] | None] = {}
    for name in _matrices(anatomy):
        rows = [part for role, part in anatomy.parts(name).items() if role in roles]
        if anatomy.layers[name].role in roles:
            found[name] = None
        elif rows:
            found[name] = rows
    return found


def _with_name(anatomy: Anatomy, end: str) -> dict[str, list[slice] | None]:
    return {name: None for name in _matrices(anatomy) if f".{name}".endswith(f".{end}")}


def _rows(anatomy: Anatomy, name: str, parts: str) -> list[slice]:
    """The rows of a fused layer that "q,v" stands for, in this order."""
    known, words = anatomy.parts(name), [part.strip() for part in parts.split(",")]
    require(
        bool(known),
        f"strategy.targets: no table says which rows of {name} are q, k and v. Name the whole layer.",
    )
    *first, last = known
    require(
        all(word in known for word in words),
        f"strategy.targets: the parts of {name} are {', '.join(first)} and {last}, not {parts}.",
    )
    return [known[word] for word in words]


def _nothing(anatomy: Anatomy, word: str) -> str:
    """That a target means nothing here, and which would."""
    matrices = _matrices(anatomy)
    roles = {anatomy.layers[name].role for name in matrices} & set(ROLES)
    roles |= {part for name in matrices for part in anatomy.parts(name)}
    ends = {_end(name) for name in matrices}
    near = suggest(word, roles | ends)
    return (
        f"strategy.targets: {word} is neither a role nor the end of the name of a linear layer or plain "
        f"convolution in this backbone.{f' {near}' if near.startswith('Did') else ''}\n"
        f"Roles: {', '.join(sorted(roles)) or 'none is known'}.\nNames: {', '.join(sorted(ends)[:40])}."
    )


def _end(name: str) -> str:
    """The last two parts of a name, or the last if the one before it is a mere number."""
    *_, before, last = ["", *name.split(".")]
    return f"{before}.{last}" if before and not before.isdigit() else last


def replace_layer(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` in the place of the one of that name, so that it is called.

    Some owners read a layer's weight instead of calling it. timm's EVA, BEiT and Swin v2 are told not to; of
    PyTorch's MultiheadAttention nothing can be replaced: ConfigurationError.
    """
    path, _, leaf = name.rpartition(".")
    owner = network.get_submodule(path)
    require(
        not isinstance(owner, nn.MultiheadAttention),
        f"strategy.targets: {path} is a torch.nn.MultiheadAttention, which reads the weight of {leaf} and "
        "would never call what is put in its place. Choose other targets.",
    )
    if leaf == "qkv" and getattr(owner, "q_bias", None) is not None:
        owner.qkv_bias_separate = True  # type: ignore[assignment]
    network.set_submodule(name, layer)
