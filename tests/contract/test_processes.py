"""Two processes give what one gives with the same batches, for every strategy."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file
from torch import nn

from cl.errors import ConfigurationError
from cl.experiment import Experiment
from cl.instantiate import locate
from cl.learner import Learner
from cl.parallel import LostProcessError, Ranks
from tests.conftest import Compose, toy_stream
from tests.contract.test_strategies import every_strategy

FORK = multiprocessing.get_context("fork")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def work(cfg: DictConfig, folder: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    experiment = Experiment(cfg, loggers=[], folder=folder)
    for module in experiment.learner.state.modules():
        # A process draws masks for its own slice only.
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(vars(module).get("dropout"), float):
            module.dropout = 0.0
    experiment.run()


def launched(rank: int, processes: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "MASTER_PORT": port}
    told |= {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    environment = {name: str(value) for name, value in told.items()}
    return environment | {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}


def run(cfg: DictConfig, folder: Path, processes: int) -> tuple[str, dict[str, torch.Tensor]]:
    """As torchrun starts them: each process is told its rank."""
    folder.mkdir()
    port = free_port()
    children = []
    for rank in range(processes):
        environment = launched(rank, processes, port)
        if processes == 1:
            environment = {}
        children.append(FORK.Process(target=work, args=(cfg, folder, environment)))
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        if child.exitcode is None:
            child.kill()
        assert child.exitcode == 0
    matrix = (folder / "accuracy_matrix.csv").read_text()
    return matrix, load_file(folder / "learner" / "state.safetensors")


def dies_alone(cfg: DictConfig, folder: Path, environment: dict[str, str]) -> None:
    """The second process is killed in the middle of a step; the first tells what it says then."""
    os.environ.update(environment)
    experiment = Experiment(cfg, loggers=[], folder=folder)
    if environment["RANK"] == "1":
        dies = lambda progress: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        experiment._checkpoint_midway = dies  # type: ignore[method-assign]
    try:
        experiment.run()
    except LostProcessError as error:
        (folder / "said").write_text(str(error))


def test_when_a_process_dies_the_others_say_how_to_go_on(compose: Compose, tmp_path: Path) -> None:
    cfg, port = compose("strategy=naive", "trainer.devices=2"), free_port()
    children = [
        FORK.Process(target=dies_alone, args=(cfg, tmp_path, launched(rank, 2, port)))
        for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        child.kill()
    said = (tmp_path / "said").read_text()
    assert "Another process of this run is gone" in said
    assert f"To go on: python run.py resume={tmp_path}" in said


@every_strategy
def test_two_processes_give_what_one_gives(compose: Compose, strategy: str, tmp_path: Path) -> None:
    common = [f"strategy={strategy}", "trainer.epochs=2", "trainer.lr=1e-3", "trainer.augment=crop"]
    common += ["trainer.optimizer=sgd", "backbone.pretrained=true"]
    if locate(compose(*common).strategy._target_, "strategy").own_loop:  # type: ignore[attr-defined]
        with pytest.raises(ConfigurationError, match="one device only"):
            Learner(compose(*common, "trainer.devices=2"), toy_stream().info)
        return
    matrix, one = run(compose(*common), tmp_path / "one", 1)
    again, two = run(compose(*common, "trainer.devices=2"), tmp_path / "two", 2)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        scale = float(tensor.abs().max()) if tensor.numel() else 0.0
        torch.testing.assert_close(
            two[name], tensor, rtol=0, atol=1e-4 * scale + 1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert matrix == again


def test_each_process_takes_its_slice() -> None:
    images = torch.arange(5.0)[:, None]
    slices = [Ranks(rank, 2).share(images)[:, 0].tolist() for rank in range(2)]
    assert slices == [[0, 1, 2], [3, 4, 4]]
