"""Start a method of your own:  python -m cl.new strategy my_method

Writes the strategy, its configuration and its test into the current folder, ready to run.
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from cl.errors import PalimpsestError, require

STRATEGY = '''"""{title}: say in one line what it does."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from cl.errors import require
from cl.ops.tensors import TensorDict, leading
from cl.strategy import Strategy
from cl.stream import Experience


class {cls}(Strategy):
    """{title} (you, {year}): an example, to be replaced by your method.

    L = L_task + strength/2 · Σ_i (θ_i − θ_i*)²,  θ* the weights after the last task.

    strength: of the pull towards the old weights; 0 is naive fine-tuning.
    """

    neutral: ClassVar[dict[str, Any]] = {{"strength": 0.0}}

    def __init__(self, strength: float = 0.1) -> None:
        super().__init__()
        require(strength >= 0, f"strategy.strength={{strength}}: it must not be negative.")
        self.strength = strength
        self.anchor = TensorDict()  # a submodule of buffers: a checkpoint holds it

    def penalty(self) -> Tensor | float:
        if not self.strength or not len(self.anchor):
            return 0.0
        weights = dict(self.run.model.named_parameters())
        # The head has grown since: only its old rows are held.
        terms = [
            (leading(weights[name], old.shape) - old).square().sum()
            for name, old in self.anchor.items()
        ]
        energy = self.strength / 2 * torch.stack(terms).sum()
        self.log("penalty", energy)  # appears in every log beside the loss
        return energy

    def after_experience(self, experience: Experience) -> None:
        for name, weight in self.run.model.named_parameters():
            self.anchor[name] = weight.detach().clone()
'''

CONFIGURATION = """# @package _global_
# python run.py {config_dir}strategy={name} strategy.strength=0.1
strategy:
  _target_: {module}.{cls}
  strength: 0.1
trainer:
  optimizer: adamw
  lr: 1e-4
"""

TEST = '''"""{title}: replace these by tests with known answers."""

from __future__ import annotations

import numpy as np
import torch
from hydra import compose, initialize_config_module

from cl.learner import Learner
from cl.stream import Stream
from {module} import {cls}


def toy_stream() -> Stream:
    """Four classes of 12 random images each, in two tasks."""
    labels = np.arange(48) % 4
    images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3)).astype(np.uint8)
    return Stream.from_arrays(images, labels, tasks=2)


def learner(strength: float) -> Learner:
    small = ["backbone.image_size=8", "backbone.pretrained=false", "trainer.device=cpu"]
    small += ["trainer.epochs=3", "trainer.batch_size=8"]
    mine = ["strategy=custom", "strategy._target_={module}.{cls}", f"+strategy.strength={{strength}}"]
    with initialize_config_module("configs", version_base="1.3"):
        return Learner(compose("config", [*small, *mine]), toy_stream().info)


def weights(made: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in made.model.backbone.parameters()])


def test_it_learns_two_tasks() -> None:
    made, stream = learner(0.1), toy_stream()
    for index in range(2):
        made.learn(stream.experience(index))
    logits = made.logits(stream.test[0])
    assert logits.shape[1] == 4
    assert torch.isfinite(logits).all()


def test_it_stays_nearer_to_the_old_weights_the_stronger_it_is() -> None:
    moved = []
    for strength in (0.0, 1e4):
        made, stream = learner(strength), toy_stream()
        made.learn(stream.experience(0))
        before = weights(made)
        made.learn(stream.experience(1))
        moved.append(float((weights(made) - before).norm()))
    assert moved[1] < 0.5 * moved[0]


def test_nothing_is_held_before_the_first_task_is_over() -> None:
    assert {cls}(strength=2.0).penalty() == 0.0
'''


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cl.new", description=__doc__)
    parser.add_argument("kind", choices=["strategy"])
    parser.add_argument("name", help="in small letters, such as my_method")
    given = parser.parse_args(argv)
    try:
        files, commands = create_strategy(Path.cwd(), given.name)
    except PalimpsestError as error:
        sys.exit(f"error: {error}")
    print(
        "written:",
        *(f"  {file}" for file in files),
        "try:",
        *(f"  {c}" for c in commands),
        sep="\n",
    )


def create_strategy(folder: Path, name: str) -> tuple[list[Path], list[str]]:
    """Write the three files into `folder`; returns their paths in it, and the commands to try next.

    In a checkout of the repository they go where the others are. Nothing that exists is overwritten.
    """
    require(
        re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and not keyword.iskeyword(name),
        f"{name}: a name begins with a small letter and has small letters, digits and _ only.",
    )
    inside = (folder / "strategies").is_dir() and (folder / "configs" / "strategy").is_dir()
    places = [
        Path("strategies" if inside else ".") / f"{name}.py",
        Path("configs/strategy" if inside else "my_configs/strategy") / f"{name}.yaml",
        Path("tests/strategies" if inside else ".") / f"test_{name}.py",
    ]
    for place in places:
        require(not (folder / place).exists(), f"{place} is there already; choose another name.")
    require(inside or find_spec(name) is None, f"{name}: a package of this name is installed.")
    values = {
        "name": name,
        "cls": "".join(part.capitalize() for part in name.split("_")),
        "title": name.replace("_", " ").strip().capitalize(),
        "module": f"strategies.{name}" if inside else name,
        "config_dir": "" if inside else "--config-dir my_configs ",
        "year": datetime.now().year,
    }
    for place, template in zip(places, (STRATEGY, CONFIGURATION, TEST), strict=True):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(template.format(**values), encoding="utf-8")
    command = "python run.py" if (folder / "run.py").exists() else "palimpsest"
    test = f"pytest {places[2]}"
    return places, [f"{command} {values['config_dir']}strategy={name}", test]


if __name__ == "__main__":
    main()
