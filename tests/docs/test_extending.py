"""docs/extending.md: every block is run, every part is short, and what is said of it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from safetensors.torch import load_file

from cl.learner import Learner
from cl.models.backbone import classifier_names
from tests.docs.pages import DOCS, blocks, read_page

PAGE = DOCS / "extending.md"
LINES = 30


def test_every_part_is_short() -> None:
    parts = [block for block in blocks(PAGE) if block.language == "python"]
    assert [part.title for part in parts] == [
        "my_plugins.py",
        "my_streams.py",
        "my_adapters.py",
        "my_metrics.py",
        "my_loggers.py",
    ]
    for part in parts:
        assert sum(bool(line.strip()) for line in part.text.splitlines()) <= LINES, part.title


def test_every_block_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    monkeypatch.chdir(folder)
    read_page(PAGE, folder)
    monkeypatch.syspath_prepend(folder)
    exported_with_its_scales(next(folder.glob("runs/*/my_adapters.Scales/*/*/learner")), tmp_path)


def exported_with_its_scales(saved: Path, folder: Path) -> None:
    """The adapter of the page learnt something, and timm's own layers do the same as the adapted ones."""
    learner = Learner.load(saved, trust=["my_adapters"])
    scales = [m for m in learner.model.modules() if hasattr(m, "chosen")]
    assert scales
    assert all((scale.chosen * scale.delta).abs().sum() > 0 for scale in scales)
    learner.export(folder / "plain.safetensors")
    name = "palimpsest_nano_patch4_32"
    plain = timm.create_model(name, num_classes=learner.seen, img_size=8).eval()
    assert classifier_names(plain) == ["head."]
    plain.load_state_dict(load_file(folder / "plain.safetensors"))
    images = learner.model.example()
    learner.model.eval()
    assert plain(images).allclose(learner.model(images), atol=1e-5)
