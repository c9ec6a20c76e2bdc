"""The units of stock timm models: what is found, and that each tensor is in exactly one of them."""

from __future__ import annotations

from collections import Counter

import pytest
import timm
import torch
from torch import nn

from cl.errors import PalimpsestError
from cl.models import nano
from cl.models.units import find_units
from tests.cl.models.anatomy.networks import TEXT


def test_a_transformer_block_has_four_attention_matrices_two_of_the_mlp_and_two_norms() -> None:
    units = find_units(timm.create_model(nano.NANO_NAME, num_classes=0))
    counts = Counter((unit.block, unit.kind) for unit in units)
    assert len({unit.block for unit in units}) == 4
    for block in {unit.block for unit in units}:
        assert counts[block, "attention"] == 4
        assert counts[block, "mlp"] == 2
        assert counts[block, "norm"] == 2
    fused = [unit.rows for unit in units if unit.rows is not None][:3]
    assert fused == [slice(0, 192), slice(192, 384), slice(384, 576)]


def test_a_batch_norm_belongs_to_the_convolution_before_it() -> None:
    units = find_units(timm.create_model("resnet18", num_classes=0))
    assert {unit.kind for unit in units} == {"conv"}
    assert len({unit.block for unit in units}) == 8
    assert units[0].parameters == (
        "layer1.0.conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.bn1.bias",
    )


@pytest.mark.parametrize("name", [nano.NANO_NAME, "resnet18", "mobilenetv2_050", "convnext_atto"])
def test_every_number_inside_the_blocks_is_in_exactly_one_unit(name: str) -> None:
    model = timm.create_model(name, num_classes=0)
    weights = dict(model.named_parameters())
    times = {key: torch.zeros(len(value)) for key, value in weights.items()}
    units = find_units(model)
    for unit in units:
        for key in unit.parameters:
            times[key][unit.rows or slice(None)] += 1
    blocks = tuple({f"{unit.block}." for unit in units})
    for key, count in times.items():
        assert (count == (1 if key.startswith(blocks) else 0)).all(), key


def test_a_language_model_has_units_of_known_kinds() -> None:
    counts = Counter((unit.block, unit.kind) for unit in find_units(TEXT["BERT"]()))
    for block in ("encoder.layer.0", "encoder.layer.1"):
        assert counts[block, "attention"] == 4, "not convolutions, as they once were"
        assert counts[block, "mlp"] == 2
        assert counts[block, "norm"] == 2


def test_a_matrix_that_no_table_knows_is_an_error() -> None:
    unknown = nn.Sequential(nn.ModuleDict({"mlp": nn.ModuleDict({"fc1": nn.Linear(2, 2)})}))
    with pytest.raises(PalimpsestError, match=r"no table says what 0\.mlp\.fc1 does"):
        find_units(unknown)
