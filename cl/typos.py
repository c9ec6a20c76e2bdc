"""What was probably meant: names that other programs use, and the nearest of ours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

from cl.errors import suggest


@cache
def aliases() -> dict[str, dict[str, str]]:
    """For `keys` and for each group: a name from elsewhere, in small letters, and what to type here."""
    text = files("configs").joinpath("aliases.yaml").read_text(encoding="utf-8")
    found: Any = OmegaConf.to_container(OmegaConf.create(text))
    return dict(found)


def meant_key(key: str, siblings: Sequence[str], known: Sequence[str]) -> str:
    """A sentence with the keys nearest to the dotted `key`.

    siblings: the keys where it goes wrong. known: all dotted keys, and the groups.
    """
    leaf = key.rpartition(".")[2].lower()
    alias = aliases()["keys"].get(leaf.replace("-", "_"))
    if alias in known:
        return f"Did you mean {alias}?"
    elsewhere = [name for name in known if name.rpartition(".")[2] == leaf]
    if elsewhere:
        return f"Did you mean {' or '.join(elsewhere[:3])}?"
    found = suggest(key, siblings)
    if found.startswith("Did you mean"):
        return found
    leaves = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(leaf, leaves, 2, 0.8)
    return f"Did you mean {' or '.join(leaves[n] for n in near)}?" if near else found


def meant_choice(group: str, choice: str, options: Mapping[str, Sequence[str]]) -> str:
    """A sentence with what comes nearest to group=choice. options: of every group."""
    alias = aliases().get(group, {}).get(choice.lower().replace("-", "_"))
    if alias is not None:
        return f"Did you mean {group}={alias}?"
    for other, names in options.items():
        if other != group and choice in names:
            value = f"[{choice}]" if other in LISTS else choice
            return f"It is a {other}: {other}={value}"
    found = suggest(choice, options[group])
    if found.startswith("Did you mean") or len(choice) < 3:
        return found
    parts = [name for name in options[group] if choice.lower() in name]
    return f"Did you mean {' or '.join(parts[:3])}?" if parts else found


LISTS = ("plugin", "metric", "logger")
"""The groups of which a run takes any number; of the others it takes one."""


def paths(node: Any, prefix: str = "") -> list[str]:
    """All dotted keys of nested dictionaries."""
    if not isinstance(node, dict):
        return []
    found = []
    for key, value in node.items():
        found += [f"{prefix}{key}", *paths(value, f"{prefix}{key}.")]
    return found
