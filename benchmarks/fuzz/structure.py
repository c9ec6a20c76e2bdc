"""Damage that keeps a file well-formed: values, keys, cells and tensors that a parser takes."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from random import Random
from typing import Any

import torch
import yaml
from safetensors.torch import load, save

SECRET = "FUZZ_SECRET"
"""An environment variable whose value must appear nowhere."""

MARK = "EXECUTED"
"""The file that is made when a mutated file gets something executed."""

NODES = (
    {"_target_": "os.system", "command": f"touch {MARK}"},
    {"_target_": "os.mkdir", "path": MARK},
    {"_target_": "builtins.open", "file": MARK, "mode": "w"},
    {"_target_": "cl.checkpoint.replace_text", "file": MARK, "text": ""},
    {"_target_": "cl.checkpoint.save_json", "content": 1, "file": MARK},
    {
        "_target_": "cl.instantiate.build",
        "where": "x",
        "node": {"_target_": "os.system", "command": f"touch {MARK}"},
    },
    {"_target_": "hydra.utils.call", "config": {"_target_": "os.mkdir", "path": MARK}},
    {"_target_": "cl.data.unpacking.unpacked", "file": "x.zip"},
    {"_target_": "strategies.naive.Naive", "node": {"_target_": "os.mkdir", "path": MARK}},
    {"_target_": "strategies.ewc.os.mkdir", "path": MARK},
)

DEEP = "@deep@"
TWICE = "@twice@"

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -5, 999, 2**63, 10**400, 0.5, 1e308, 1e-320),
    *(float("nan"), float("inf"), "", " ", "x", "x" * 10_000, "0", "nan", "null", "???"),
    *([], [[]], [1, 2, 3], ["x"] * 1000, {}, {"x": 1}, {"": None}),
    *("../../outside", "/etc/passwd", "a\nb", "\x1b[31m", "\u202e", "e\u0301", "\0", "\ud800"),
    *(f"${{oc.env:{SECRET}}}", "${seed}", "${", "${hydra:runtime.cwd}", "${x.y}"),
    *("os.system", "cl.nothing", "strategies.ewc.EWC", "streams.digits.split_digits", DEEP),
)


def tree(content: Any, chance: Random) -> Any:
    """One value of nested containers replaced, removed, renamed, moved or doubled."""
    content = copy.deepcopy(content)
    holders = [content, *_containers(content)]
    holder = chance.choice([h for h in holders if h] or [content])
    if not isinstance(holder, dict | list) or not holder:
        return chance.choice(ODD)
    key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    deed = chance.choice(DEEDS)
    if deed == "node" and (nodes := [h for h in holders if "_target_" in h]):
        node = chance.choice(nodes)
        node.clear()
        node.update(copy.deepcopy(chance.choice(NODES)))
    elif deed == "near":
        holder[key] = _near(holder[key], chance)
    elif deed == "remove":
        del holder[key]
    elif deed == "rename" and isinstance(holder, dict):
        new = chance.choice((f"{key}x", str(key).upper(), "", "_target_", str(key)[:-1]))
        holder[new] = holder.pop(key)
    elif deed == "swap":
        other = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[key], holder[other] = holder[other], holder[key]
    elif deed == "add" and isinstance(holder, dict):
        holder[chance.choice(("more", "_target_", "_args_", "format", TWICE))] = chance.choice(ODD)
    else:
        holder[key] = chance.choice((*ODD, *NODES))
    return content


DEEDS = ("odd", "odd", "odd", "near", "remove", "rename", "swap", "add", "node")


def json_text(content: bytes, chance: Random) -> bytes:
    """A JSON file with a changed tree."""
    changed = json.dumps(tree(json.loads(content), chance), indent=2)
    return _deep(changed).replace(f'"{TWICE}"', '"seed"').encode(errors="surrogatepass")


def json_lines(content: bytes, chance: Random) -> bytes:
    """A file of JSON lines: a line changed, doubled, removed or moved."""
    lines = content.decode().splitlines()
    place = chance.randrange(len(lines))
    deed = chance.choice(("tree", "tree", "double", "remove", "swap"))
    if deed == "tree":
        lines[place] = _deep(json.dumps(tree(json.loads(lines[place]), chance)))
    elif deed == "double":
        lines.insert(chance.randrange(len(lines)), lines[place])
    elif deed == "remove":
        del lines[place]
    else:
        other = chance.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogatepass")


def yaml_text(content: bytes, chance: Random) -> bytes:
    """A YAML file with a changed tree, or with what only YAML can do."""
    text = content.decode()
    if chance.random() < 0.7:
        changed = tree(yaml.safe_load(text), chance)
        dumped = yaml.safe_dump(changed, sort_keys=False, allow_unicode=False)
        return _deep(dumped).replace(f"'{TWICE}'", "seed").encode(errors="surrogatepass")
    lines = text.splitlines()
    place = chance.randrange(len(lines) + 1)
    lines.insert(place, chance.choice(YAML_LINES))
    return ("\n".join(lines) + "\n").encode()


def _bomb(step: str) -> str:
    return "\n".join(["x0: &x0 [x, x]", *(step.format(a=i, b=i + 1) for i in range(40))])


YAML_LINES = (
    _bomb("x{b}: &x{b} [*x{a}, *x{a}]"),
    "y0: yyyyyyyy\n" + "\n".join(f"y{i + 1}: ${{y{i}}}${{y{i}}}" for i in range(40)),
    f"z: ${{oc.env:{SECRET}}}",
    f'z: !!python/object/apply:os.system ["touch {MARK}"]',
    "z: !unknown 1",
    "z: &z [*z]",
    "<<: {seed: 7}",
    "\tz: 1",
    "---",
    "%YAML 9.9",
    "seed: 1\nseed: 2",
    "? [a, b]\n: 1",
    "1: 2",
    "z: 2001-13-45",
    "z: 1:2:3",
    "- z",
)


def csv_text(content: bytes, chance: Random) -> bytes:
    """A CSV file: a cell, a row or a column changed."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    place, column = chance.randrange(len(rows)), chance.randrange(len(rows[0]))
    deed = chance.choice(("cell", "cell", "cell", "double", "remove", "swap", "column", "longer"))
    if deed == "cell":
        rows[place][column] = chance.choice(CELLS)
    elif deed == "double":
        rows.insert(chance.randrange(len(rows)), list(rows[place]))
    elif deed == "remove":
        del rows[place]
    elif deed == "swap":
        other = chance.randrange(len(rows))
        rows[place], rows[other] = rows[other], rows[place]
    elif deed == "column":
        rows = [row[:column] + row[column + 1 :] for row in rows]
    else:
        rows[place].append(chance.choice(CELLS))
    text = io.StringIO()
    csv.writer(text, lineterminator=chance.choice(("\n", "\r\n", "\r"))).writerows(rows)
    return text.getvalue().encode()


CELLS = (
    *("", "0", "1", "3", "-1", "5", "999999", "1e3", "0x1", " 2", "1_0", "nan", "٣", "9" * 5000),
    *("=1+1", '"', "a,b", "a\nb", "\0", "x" * 200_000),
)


def tensors(content: bytes, chance: Random) -> bytes:
    """A safetensors file: a tensor renamed, reshaped, retyped, damaged in its values, or missing."""
    stored = load(content)
    if chance.random() < 0.2 or not stored:
        return _header(content, chance)
    name = chance.choice(list(stored))
    deed, change = chance.choice(list(TENSORS.items()))
    if deed == "rename":
        stored[chance.choice((f"{name}x", "model.more", name.rpartition(".")[2]))] = stored.pop(
            name
        )
    elif deed == "remove":
        del stored[name]
    elif deed == "add":
        stored[chance.choice(("more", "model.more", f"{name}.more"))] = torch.ones(2, 2)
    elif deed == "swap":
        other = chance.choice(list(stored))
        stored[name], stored[other] = stored[other], stored[name]
    else:
        stored[name] = change(stored[name]).contiguous()
    return save({key: tensor.clone() for key, tensor in stored.items()})


def _poisoned(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone() if tensor.is_floating_point() else tensor.float()
        changed.view(-1)[:1] = value
        return changed

    return change


TENSORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    **dict.fromkeys(("rename", "remove", "add", "swap"), lambda tensor: tensor),
    "nan": _poisoned(float("nan")),
    "inf": _poisoned(float("inf")),
    "large": _poisoned(1e38),
    "flat": lambda tensor: tensor.reshape(-1),
    "transposed": lambda tensor: tensor.T if tensor.ndim == 2 else tensor[None],
    "no rows": lambda tensor: tensor[:0] if tensor.ndim else tensor[None][:0],
    "shorter": lambda tensor: tensor[: len(tensor) // 2] if tensor.ndim else tensor[None],
    "twice": lambda tensor: torch.cat([tensor, tensor]) if tensor.ndim else tensor[None],
    "whole numbers": lambda tensor: tensor.to(torch.int64),
    "half": lambda tensor: tensor.half(),
    "double": lambda tensor: tensor.double(),
    "truth": lambda tensor: tensor.bool(),
    "complex": lambda tensor: tensor.to(torch.complex64),
}


def _header(content: bytes, chance: Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = tree(json.loads(content[8 : 8 + length]), chance)
    text = _deep(json.dumps(header)).encode(errors="surrogatepass")
    told = chance.choice((len(text), len(text), 2**63, len(text) + 8))
    return told.to_bytes(8, "little") + text + content[8 + length :]


STRUCTURED: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": json_text,
    ".jsonl": json_lines,
    ".yaml": yaml_text,
    ".csv": csv_text,
    ".safetensors": tensors,
}


def _containers(content: Any) -> list[Any]:
    inside = content.values() if isinstance(content, dict) else content
    found = [value for value in inside if isinstance(value, dict | list)]
    return found + [deeper for value in found for deeper in _containers(value)]


def _near(value: Any, chance: Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + chance.choice((1, -1, 100))
    if isinstance(value, str):
        return chance.choice((value[:-1], f"{value} ", value.upper(), f"{value}x"))
    if isinstance(value, list):
        return chance.choice((value[1:], value * 2, value[::-1]))
    return chance.choice(ODD)


def _deep(text: str) -> str:
    nested = "[" * 100_000 + "]" * 100_000
    return text.replace(f'"{DEEP}"', nested).replace(f"'{DEEP}'", nested)
