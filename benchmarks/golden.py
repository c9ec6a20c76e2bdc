"""The same bits as before?

python benchmarks/golden.py make before.json       before a change
python benchmarks/golden.py compare before.json    after it

Every strategy, and naive with every plugin, learns three small tasks of the digits on the embedded
backbone. What is noted are the accuracy matrix in integers and hashes of all weights of the model and of
the logits on the test images. The weights' names are not looked at, so a change that only moves code must
leave the file as it is. The bits are those of one machine with one version of torch: the file is made and
compared on one machine, and is not kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import hydra
import torch

from cl.experiment import Experiment

SMALL = (
    *("stream=split_digits", "stream.tasks=3", "trainer.epochs=1", "trainer.batch_size=64"),
    *("trainer.device=cpu", "trainer.checkpoint=false", "logger=[]"),
)


def jobs() -> dict[str, list[str]]:
    """Overrides by the name of what is run."""
    strategies, plugins = (_names(group) for group in ("strategy", "plugin"))
    runs = {name: [f"strategy={name}"] for name in strategies}
    return runs | {f"naive+{name}": ["strategy=naive", f"plugin=[{name}]"] for name in plugins}


def _names(group: str) -> list[str]:
    found = files("configs").joinpath(group).iterdir()
    names = (file.name.removesuffix(".yaml") for file in found if file.name.endswith(".yaml"))
    return sorted(name for name in names if name != "custom")


def result(overrides: list[str]) -> dict[str, object]:
    """Matrix and hashes of one run."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*SMALL, f"output={folder}", *overrides]
        names = ["names.stream=digits", "names.strategy=golden", "names.backbone=nano"]
        with hydra.initialize_config_module("configs", version_base="1.3"):
            experiment = Experiment(hydra.compose("config", [*words, *names]), loggers=[])
        experiment.run()
        learner, stream = experiment.learner, experiment.stream
        told = stream.scenario == "task-incremental" or learner.strategy.needs_task_id
        logits = [
            learner.logits(test, task if told else None) for task, test in enumerate(stream.test)
        ]
        weights = sorted(_hash(tensor) for tensor in learner.model.state_dict().values())
        return {
            "matrix": [
                [c.experience, c.task, c.images, c.correct] for c in experiment.matrix.cells
            ],
            "weights": hashlib.sha256("".join(weights).encode()).hexdigest(),
            "logits": [_hash(part) for part in logits],
        }


def _hash(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("make", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="*", help="names of strategies")
    given = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads(given.file.read_text()) if given.command == "compare" else {}
    found, bad = {}, []
    for name, overrides in jobs().items():
        if given.only and name not in given.only:
            continue
        found[name] = result(overrides)
        same = found[name] == before.get(name)
        if before and not same:
            bad.append(name)
        print(
            name,
            "" if not before else "same" if same else "NEW" if name not in before else "DIFFERENT",
            flush=True,
        )
    if given.command == "make":
        given.file.write_text(json.dumps(found, indent=1))
    sys.exit(f"different: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
