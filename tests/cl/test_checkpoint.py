from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cl.checkpoint import load_json, load_module, save_json, save_module
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
    save_module(state, tmp_path / "s.safetensors")
    fresh = State()
    load_module(fresh, tmp_path / "s.safetensors")
    assert torch.equal(fresh.head.weight, state.head.weight)
    assert fresh.head.weight.requires_grad
    assert torch.equal(fresh.anchors["head.weight"], state.anchors["head.weight"])
    assert [name for name, _ in fresh.anchors.items()] == ["head.weight"]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    save_module(LinearHead(4), tmp_path / "s.safetensors")
    with pytest.raises(WeightsError, match=r"lacks head\.bias, head\.weight"):
        load_module(State(), tmp_path / "s.safetensors")
    save_module(
        nn.ModuleDict({"head": LinearHead(4), "other": LinearHead(4)}), tmp_path / "s.safetensors"
    )
    with pytest.raises(WeightsError, match="no other"):
        load_module(State(), tmp_path / "s.safetensors")


def test_damaged_files_are_recognised(tmp_path: Path) -> None:
    save_module(LinearHead(4), tmp_path / "s.safetensors")
    content = (tmp_path / "s.safetensors").read_bytes()
    (tmp_path / "s.safetensors").write_bytes(content[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        load_module(LinearHead(4), tmp_path / "s.safetensors")
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
