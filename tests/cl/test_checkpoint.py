from __future__ import annotations

import resource
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import nn

from cl.checkpoint import (
    check_format,
    check_seal,
    checksum,
    load_json,
    load_state,
    load_tensors,
    replacing_together,
    save_json,
    save_tensors,
    seal,
    settle,
    write_unless_there,
)
from cl.errors import WeightsError
from cl.models.heads import LinearHead
from cl.ops.tensors import TensorDict


class State(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = LinearHead(4)
        self.anchors = TensorDict()


def test_grown_and_added_tensors_come_back(tmp_path: Path) -> None:
    state = State()
    state.head.grow(3, torch.Generator())
    state.anchors["head.weight"] = torch.randn(3, 4)
    save_tensors(state.state_dict(), tmp_path / "s.safetensors")
    fresh = State()
    load_state(fresh, load_tensors(tmp_path / "s.safetensors"), tmp_path / "s.safetensors")
    assert torch.equal(fresh.head.weight, state.head.weight)
    assert fresh.head.weight.requires_grad
    assert torch.equal(fresh.anchors["head.weight"], state.anchors["head.weight"])
    assert [name for name, _ in fresh.anchors.items()] == ["head.weight"]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    save_tensors(LinearHead(4).state_dict(), tmp_path / "s.safetensors")
    with pytest.raises(WeightsError, match=r"lacks head\.bias, head\.weight"):
        load_state(State(), load_tensors(tmp_path / "s.safetensors"), tmp_path / "s.safetensors")
    save_tensors(
        nn.ModuleDict({"head": LinearHead(4), "other": LinearHead(4)}).state_dict(),
        tmp_path / "s.safetensors",
    )
    with pytest.raises(WeightsError, match="no other"):
        load_state(State(), load_tensors(tmp_path / "s.safetensors"), tmp_path / "s.safetensors")


def test_damaged_files_are_recognised(tmp_path: Path) -> None:
    save_tensors(LinearHead(4).state_dict(), tmp_path / "s.safetensors")
    content = (tmp_path / "s.safetensors").read_bytes()
    (tmp_path / "s.safetensors").write_bytes(content[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        load_state(
            LinearHead(4), load_tensors(tmp_path / "s.safetensors"), tmp_path / "s.safetensors"
        )
    (tmp_path / "j.json").write_text('{"a": ')
    with pytest.raises(WeightsError, match="damaged"):
        load_json(tmp_path / "j.json")
    with pytest.raises(WeightsError, match="missing"):
        load_json(tmp_path / "no.json")


def test_an_interrupted_write_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "j.json"
    save_json({"a": 1}, file)

    def fail(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        save_json({"a": 2}, file)
    assert load_json(file) == {"a": 1}


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        ({}, r"does not cover a\.json"),
        ([], "must hold a checksum"),
        ({"a.json": ""}, "must hold a checksum"),
        ({"a.json": 5}, "must hold a checksum"),
        ({"../a.json": "0" * 64}, "is no name"),
        ({"/etc/hostname": "0" * 64}, "is no name"),
        ({"..": "0" * 64}, "is no name"),
        ({"": "0" * 64}, "is no name"),
        ({"C:\\a.json": "0" * 64}, "is no name"),
        ({"b.json": "0" * 64}, "is missing"),
    ],
)
def test_a_seal_covers_what_it_must_and_nothing_outside(
    tmp_path: Path, sums: object, said: str
) -> None:
    save_json(1, tmp_path / "a.json")
    seal(tmp_path)
    check_seal(tmp_path, ["a.json"])
    if isinstance(sums, dict) and sums and "a.json" not in sums:
        sums = {"a.json": checksum(tmp_path / "a.json"), **sums}
    save_json(sums, tmp_path / "checksums.json")
    with pytest.raises(WeightsError, match=said):
        check_seal(tmp_path, ["a.json"])


def replace_both(folder: Path, content: object) -> None:
    with replacing_together(folder) as place:
        for name in ("a.json", "b.json"):
            save_json(content, place / name)


def both(folder: Path) -> set[int]:
    check_seal(folder, ["a.json", "b.json"])
    return {load_json(folder / name) for name in ("a.json", "b.json")}


def test_files_are_replaced_together(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    replace_both(tmp_path, 1)
    assert both(tmp_path) == {1}
    with pytest.raises(TypeError):
        replace_both(tmp_path, object())  # no JSON
    assert both(tmp_path) == {1}
    replace_both(tmp_path, 3)
    assert both(tmp_path) == {3}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.json", "b.json", "checksums.json", "notes.txt"}


def dying_at(call: int, patched: pytest.MonkeyPatch) -> None:
    """Lets the process die instead of this renaming, counted from now."""
    original, calls = Path.replace, count(1)

    def rename(path: Path, target: Path) -> Path:
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(path, target)

    patched.setattr(Path, "replace", rename)
    patched.setattr(Path, "rename", rename)


@pytest.mark.parametrize("call", range(1, 9))
def test_a_kill_while_files_are_replaced_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """At each renaming: of the three files as they are written, of the folder, of each to its place."""
    replace_both(tmp_path, 1)
    with suppress(KeyboardInterrupt), monkeypatch.context() as patched:
        dying_at(call, patched)
        replace_both(tmp_path, 2)
    settle(tmp_path)
    assert both(tmp_path) == ({1} if call <= 4 else {2})
    replace_both(tmp_path, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json", "checksums.json"}


def test_a_full_disk_leaves_the_earlier_file_and_no_other(tmp_path: Path) -> None:
    """A limit on the size of files, as the kernel enforces it."""
    file = tmp_path / "j.json"
    save_json("short", file)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save_json("x" * 100_000, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_json(file) == "short"
    assert [path.name for path in tmp_path.iterdir()] == ["j.json"]


def edited(tmp_path: Path, **tensors: torch.Tensor) -> Path:
    """The state of a small model, with some tensors replaced or added."""
    state = State()
    state.head.grow(3, torch.Generator())
    save_tensors({**state.state_dict(), **tensors}, tmp_path / "s.safetensors")
    return tmp_path / "s.safetensors"


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("head.weight", torch.full((3, 4), float("nan")), "no number"),
        ("head.bias", torch.full((3,), float("inf")), "no number"),
        ("anchors.x", torch.tensor([float("nan")]), "no number"),
        ("head.weight", torch.zeros(3, 2), "does not fit"),
        ("head.weight", torch.zeros(12), "does not fit"),
        ("head.weight", torch.zeros(3, 4, dtype=torch.float64), "does not fit"),
        ("head.scale", torch.zeros(1), r"no head\.scale"),
    ],
)
def test_tensors_must_fit(tmp_path: Path, name: str, tensor: torch.Tensor, said: str) -> None:
    file = edited(tmp_path, **{name: tensor})
    with pytest.raises(WeightsError, match=said):
        load_state(State(), load_tensors(file), file, closed="head")


def test_a_method_may_add_and_fill_buffers(tmp_path: Path) -> None:
    state = State()
    state.anchors.register_buffer("later", torch.zeros(0))
    file = edited(tmp_path, **{"anchors.x": torch.ones(2), "anchors.later": torch.ones(2, 3)})
    load_state(state, load_tensors(file), file, closed="head")
    assert state.anchors["x"].tolist() == [1, 1]
    assert state.anchors["later"].shape == (2, 3)


@pytest.mark.parametrize("number", [999, 0, -1, "1", None, True, 1.0])
def test_the_format_is_read(tmp_path: Path, number: object) -> None:
    said = "newer version: its format is 999" if number == 999 else "format cannot be"
    with pytest.raises(WeightsError, match=said):
        check_format({"format": number}, 1, tmp_path / "x.json")
    check_format({"format": 1}, 1, tmp_path / "x.json")


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    write_unless_there(file, "grün")
    before = file.stat().st_mtime_ns, file.stat().st_ino
    write_unless_there(file, "grün")
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
    write_unless_there(file, "rot")
    assert file.read_text() == "rot"
    file.unlink()
    file.symlink_to("/dev/zero")
    write_unless_there(file, "blau")
    assert file.read_text() == "blau"
    assert not file.is_symlink()
