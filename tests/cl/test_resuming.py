"""Going on with a run: its own checkpoints only, and nothing is changed without a word."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from safetensors.torch import load_file, save_file

import cl.checkpoint
from cl.checkpoint import load_json, save_json, seal
from cl.errors import ConfigurationError, DataError, ResourceError
from cl.experiment import Experiment, start
from cl.learner import Learner
from cl.loggers import ConsoleLogger, ExperienceResult, Logger
from cl.report.runs import Run
from cl.run_folder import Checkpoints
from cl.stream import Stream
from tests.conftest import Compose

STREAM = "+stream.tasks=4"


class Kill(Logger):
    """Ends the run when an experience was evaluated, before its checkpoint."""

    def __init__(self, experience: int) -> None:
        self.index = experience

    def experience(self, result: ExperienceResult) -> None:
        if result.index == self.index:
            raise KeyboardInterrupt


def stopped(cfg: DictConfig, after: int = 2, folder: Path | None = None) -> Path:
    """A run of simplecil, or what `cfg` says, that has checkpoints after the experiences before `after`."""
    experiment = Experiment(cfg, [Kill(after)], folder)
    with pytest.raises(KeyboardInterrupt):
        experiment.run()
    return experiment.folder


def resume(folder: Path, **changes: Any) -> Experiment:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return Experiment.resume(folder, loggers=[], trust=["tests"], changes=dotted)


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file of a checkpoint and seal it again, as someone who knows how."""
    content = load_json(file)
    change(content)
    save_json(content, file)
    seal(file.parent)


@pytest.fixture
def cfg(compose: Compose) -> DictConfig:
    return compose("strategy=simplecil", STREAM)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `cfg` that was stopped after two of its four experiences."""
    folder: Path = tmp_path_factory.mktemp("original")
    small = ["strategy=simplecil", "backbone.image_size=8", "backbone.pretrained=false", STREAM]
    small += ["trainer.device=cpu", "trainer.epochs=2", "trainer.batch_size=8"]
    small += ["stream=custom", "stream._target_=tests.conftest.toy_stream"]
    with initialize_config_module("configs", version_base="1.3"):
        cfg = hydra_compose("config", small)
    names = {"stream": "toy", "strategy": "test", "backbone": "nano"}
    with open_dict(cfg):
        cfg.merge_with({"names": names})
    return stopped(cfg, folder=folder)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "stopped"))


def test_a_run_has_an_identity(cfg: DictConfig, folder: Path) -> None:
    first, second = Experiment(cfg, []), Experiment(cfg, [])
    summary = first.run()
    run = load_json(first.folder / "run.json")
    assert run["format"] == 1
    assert run["id"] == summary["run"] == first.run_id != second.run_id
    assert Learner.load(first.folder / "learner").run_id == run["id"]
    for checkpoint in Checkpoints(folder).between():
        own = load_json(folder / "run.json")["id"]
        assert load_json(checkpoint / "progress.json")["run"] == own
        assert load_json(checkpoint / "learner.json")["run"] == own


def test_the_checkpoint_of_another_run_is_passed_over(
    cfg: DictConfig, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = stopped(cfg)
    newest = Checkpoints(folder).between()[-1]
    shutil.rmtree(newest)
    shutil.copytree(Checkpoints(other).between()[-1], newest)
    assert resume(folder).matrix.rows == 1
    assert "is of another run. The checkpoint before it is taken." in capsys.readouterr().err


def test_the_checkpoint_of_another_experience_is_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Checkpoints(folder).between()
    shutil.rmtree(second)
    shutil.copytree(first, second)
    assert resume(folder).matrix.rows == 1
    assert "holds another moment: 1 experiences" in capsys.readouterr().err
    edit(second / "progress.json", lambda c: c.update(experiences=2, matrix=None))
    edit(second / "progress.json", lambda c: c.pop("matrix"))
    assert resume(folder).matrix.rows == 1
    assert "a learner after 1 experiences, not after 2" in capsys.readouterr().err


def test_folders_of_other_names_are_no_checkpoints_and_stay(folder: Path) -> None:
    for name in ("notes", "000009.partial", "9", "000002-x"):
        (folder / "checkpoints" / name).mkdir()
    experiment = resume(folder)
    assert experiment.matrix.rows == 2
    experiment.loggers = [Kill(3)]
    with pytest.raises(KeyboardInterrupt):
        experiment.run()
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    assert left == {"000002", "000003", "notes", "9", "000002-x"}, "what a kill left is cleaned up"


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"seconds": -1.0, "steps": 0},
        {"seconds": float("nan"), "steps": 0},
        {"seconds": 1.0, "steps": -5},
        {"seconds": 1.0, "steps": 0, "config": []},
        {"seconds": 1.0, "steps": 0, "changes": [3]},
        {"seconds": "1", "steps": 0},
    ],
)
def test_progress_that_cannot_be(
    folder: Path, content: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = Checkpoints(folder).between()[-1]
    save_json(content, newest / "progress.json")
    seal(newest)
    assert resume(folder).matrix.rows == 1
    assert "progress.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("sums", ["{}", "[]", '{"../x": "0"}', "{"])
def test_an_empty_seal_is_damage(folder: Path, sums: str) -> None:
    (Checkpoints(folder).between()[-1] / "checksums.json").write_text(sums)
    assert resume(folder).matrix.rows == 1


def test_weights_that_are_no_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = Checkpoints(folder).between()[-1]
    tensors = load_file(newest / "state.safetensors")
    tensors["model.backbone.norm.weight"] *= np.nan
    save_file(tensors, newest / "state.safetensors")
    seal(newest)
    assert resume(folder).matrix.rows == 1
    assert "no number" in capsys.readouterr().err


def test_an_edited_matrix_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even if all counts are possible; nothing is left to go on from."""
    file = folder / "accuracy_matrix.csv"
    lines = file.read_text().splitlines()
    lines[1] = "0,0,6,1,0.166667,1,0.166667"
    file.write_text("\n".join(lines) + "\n")
    assert resume(folder).matrix.rows == 0
    said = capsys.readouterr().err
    assert "accuracy_matrix.csv is not that with which" in said
    assert "There is none before it: the run begins again." in said


def test_an_impossible_matrix_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "accuracy_matrix.csv"
    file.write_text(file.read_text().replace("0,0,6,", "0,0,6,9", 1))
    resume(folder)
    assert "accuracy_matrix.csv is damaged: line 2" in capsys.readouterr().err


def set_in_config(folder: Path, key: str, value: object) -> None:
    stored = OmegaConf.load(folder / "config.yaml")
    OmegaConf.update(stored, key, value, force_add=True)
    OmegaConf.save(stored, folder / "config.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 5),
        ("trainer.lr", 0.5),
        ("trainer.batch_size", 4),
        ("stream.order", [3, 2, 1, 0]),
        ("strategy._target_", "strategies.naive.Naive"),
        ("names.strategy", "other"),
    ],
)
def test_an_edited_configuration_is_refused(folder: Path, key: str, value: object) -> None:
    set_in_config(folder, key, value)
    with pytest.raises(ConfigurationError, match=rf"config\.yaml has another {key} .*Put it back"):
        resume(folder)


def test_an_edit_that_does_no_harm_is_applied_and_noted(folder: Path) -> None:
    set_in_config(folder, "trainer.evaluation_batch_size", 7)
    experiment = resume(folder)
    assert experiment.learner.config.evaluation_batch_size == 7
    (change,) = experiment.run()["changes"]
    assert (change["key"], change["after"], change["experience"]) == (
        "trainer.evaluation_batch_size",
        7,
        2,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"trainer.lr": 0.5},
        {"trainer.batch_size": 4, "trainer.device": "cpu"},
        {"stream.tasks": 2},
        {"plugin": {"ema": {"_target_": "strategies.plugins.ema.EMA"}}},
        {"backbone.image_size": 16},
        {"output": "elsewhere"},
        {"strategy": {"_target_": "strategies.naive.Naive"}},
    ],
)
def test_what_may_not_be_changed_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    config = (folder / "config.yaml").read_bytes()
    key = next(iter(changes))
    with pytest.raises(ConfigurationError, match=rf"cannot go on with another {key}.*Leave it out"):
        Experiment.resume(folder, [], ["tests"], changes)
    assert (folder / "config.yaml").read_bytes() == config


def test_what_may_be_changed_is_applied_and_noted(compose: Compose) -> None:
    folder = stopped(compose("strategy=naive", STREAM, "trainer.epochs=1"))
    experiment = resume(
        folder,
        trainer__epochs=3,
        trainer__quiet=True,
        trainer__device="cpu",  # as it was
        cache={"memory_gb": 0.0, "dir": None, "dir_gb": 10.0},
        logger={},
    )
    config = experiment.learner.config
    assert (config.epochs, config.quiet) == (3, True)
    assert experiment.learner.model.cache is None
    summary = experiment.run()
    noted = {change["key"]: change for change in summary["changes"]}
    assert "trainer.device" not in noted
    assert noted["trainer.epochs"]["before"] == 1
    assert noted["trainer.epochs"]["after"] == 3
    assert noted["trainer.epochs"]["experience"] == 2
    assert experiment.steps == (2 * 1 + 2 * 3) * 2, "of the experiences to come only"
    stored = OmegaConf.load(folder / "config.yaml")
    assert (stored.trainer.epochs, stored.trainer.quiet, stored.logger) == (3, True, {})
    assert summary == load_json(folder / "summary.json")
    assert Learner.load(folder / "learner").config.epochs == 3


def test_changes_are_kept_through_another_stop(folder: Path) -> None:
    experiment = resume(folder, trainer__quiet=True)
    experiment.loggers = [Kill(3)]
    with pytest.raises(KeyboardInterrupt):
        experiment.run()
    again = resume(folder, trainer__quiet=True)
    assert again.matrix.rows == 3
    assert [change["experience"] for change in again.run()["changes"]] == [2]


def midway(compose: Compose) -> tuple[Path, Experiment]:
    """A run that stopped within its second experience, and one that never stopped."""
    cfg = compose("strategy=naive", STREAM, "trainer.checkpoint_minutes=1e-9")
    whole = Experiment(cfg, [])
    whole.run()
    experiment = Experiment(cfg, [])
    step = experiment._checkpoint_midway

    def dying(progress: Any) -> None:
        step(progress)
        if (progress.experience, progress.step) == (1, 2):
            raise KeyboardInterrupt

    experiment._checkpoint_midway = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        experiment.run()
    return experiment.folder, whole


def test_checkpoints_inside_an_experience_are_checked_too(
    compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, whole = midway(compose)
    last = Checkpoints(folder).midway(1)[-1]
    assert resume(folder).midway == last
    assert "begun again" not in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match=r"another trainer\.lr"):
        resume(folder, trainer__lr=0.5)
    set_in_config(folder, "trainer.lr", 0.5)
    with pytest.raises(ConfigurationError, match=r"config\.yaml has another trainer\.lr"):
        resume(folder)
    set_in_config(folder, "trainer.lr", whole.cfg.trainer.lr)
    assert resume(folder, trainer__epochs=3).midway is None, "it would be neither two nor three"
    assert "begun again, with another trainer.epochs" in capsys.readouterr().err
    tensors = load_file(last / "training.safetensors")
    broken = {name: t * np.nan if ":weight" in name else t for name, t in tensors.items()}
    save_file(broken, last / "training.safetensors")
    seal(last)
    assert resume(folder).midway == Checkpoints(folder).midway(1)[-2]
    assert "no number" in capsys.readouterr().err
    shutil.rmtree(last)
    shutil.copytree(Checkpoints(folder).midway(1)[-1], last)
    experiment = resume(folder)
    assert experiment.midway == Checkpoints(folder).midway(1)[-2]
    assert "holds another moment" in capsys.readouterr().err
    experiment.run()
    assert experiment.matrix == whole.matrix


def test_a_run_of_an_older_version_goes_on(cfg: DictConfig, folder: Path) -> None:
    """No identity, no contents, no configuration in its checkpoints."""
    (folder / "run.json").unlink()
    with np.load(folder / "split.npz") as stored:
        kept = {key: stored[key] for key in stored.files if key != "contents"}
    np.savez(folder / "split.npz", **kept)
    for checkpoint in Checkpoints(folder).between():
        for name, keys in (("progress.json", ("seconds", "steps")), ("learner.json", None)):
            content = load_json(checkpoint / name)
            content.pop("run")
            old = {key: content[key] for key in keys or content}
            save_json(old, checkpoint / name)
        seal(checkpoint)
    set_in_config(folder, "trainer.lr", 0.5)
    with pytest.raises(ConfigurationError, match=r"another trainer\.lr"):
        resume(folder)
    set_in_config(folder, "trainer.lr", cfg.trainer.lr)
    experiment = resume(folder)
    assert experiment.matrix.rows == 2
    whole = Experiment(cfg, [])
    whole.run()
    assert experiment.run()["run"] is None
    assert experiment.matrix == whole.matrix


def test_a_lost_identity_comes_back_from_the_checkpoints(folder: Path) -> None:
    before = (folder / "run.json").read_bytes()
    (folder / "run.json").unlink()
    resume(folder).run()
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"id": 3}', '{"id": "x", "format": 999}'])
def test_a_damaged_identity_is_an_error(folder: Path, content: str) -> None:
    (folder / "run.json").write_text(content)
    with pytest.raises(Exception, match=r"run\.json (is damaged|was written by a newer)"):
        resume(folder)


def noise_stream(file: str) -> Stream:
    with np.load(file) as stored:
        return Stream.from_arrays(stored["images"], np.arange(40) % 4, tasks=4, name="noise")


def test_other_pixels_are_refused(compose: Compose, tmp_path: Path) -> None:
    def write(seed: int) -> None:
        generator = np.random.default_rng(seed)
        images = generator.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
        np.savez(tmp_path / "images.npz", images=images)

    write(0)
    folder = stopped(
        compose(
            "strategy=simplecil",
            f"stream._target_={__name__}.noise_stream",
            f"+stream.file={tmp_path}/images.npz",
        )
    )
    write(1)
    with pytest.raises(DataError, match="the run began with other pixels"):
        resume(folder).run()
    write(0)
    assert resume(folder).run()["stream_contents"]


def test_nothing_is_written_again_without_need(folder: Path) -> None:
    names = ("config.yaml", "run.json", "split.npz")
    before = {name: (folder / name).stat().st_ino for name in names}
    resume(folder).run()
    assert {name: (folder / name).stat().st_ino for name in names} == before


def test_a_full_disk_at_the_start_of_a_resume_loses_nothing(
    cfg: DictConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written first, the run can be resumed afterwards."""
    whole = Experiment(cfg, [])
    whole.run()
    content = {p: p.read_bytes() for p in folder.glob("*.*") if p.name != "accuracy_matrix.csv"}

    def full(*arguments: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    for place in ("flush", "_replace"):
        with monkeypatch.context() as patched:
            patched.setattr(cl.checkpoint, place, full)
            experiment = resume(folder, trainer__quiet=True)
            with pytest.raises(ResourceError, match="is full"):
                experiment.run()
        assert {path: path.read_bytes() for path in content} == content
    resumed = resume(folder, trainer__quiet=True)
    resumed.run()
    assert resumed.matrix == whole.matrix


def test_a_complete_run_says_so_whatever_its_loggers_are(
    cfg: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loggers in ([], None):
        experiment = Experiment(cfg, loggers)
        summary = experiment.run()
        assert json.loads((experiment.folder / "summary.json").read_text()) == summary
        with pytest.raises(ConfigurationError, match="this run is complete"):
            Experiment.resume(experiment.folder, [], ["tests"])
        assert Run.load(experiment.folder).summary == summary


def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *typed: str) -> DictConfig:
    """The configuration that this command line gives, with Hydra's own beside it."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # restored afterwards
    small = ["stream=custom", "stream._target_=tests.conftest.toy_stream", "backbone.image_size=8"]
    small += ["backbone.pretrained=false", f"output={tmp_path}/runs", "logger=[]", STREAM]
    with initialize_config_module("configs", version_base="1.3"):
        cfg = hydra_compose("config", [*small, *typed], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    plain = copy.deepcopy(cfg)
    with open_dict(plain):
        del plain["hydra"]
    return plain


def test_the_command_line_may_repeat_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = ["strategy=simplecil", "trainer.lr=1e-3", "seed=3"]
    folder = stopped(command(monkeypatch, tmp_path, *same))
    again = start(command(monkeypatch, tmp_path, *same, f"resume={folder}", "trust=[tests]"))
    assert (again.folder, again.matrix.rows) == (folder, 2)
    changed = [f"resume={folder}", "trust=[tests]", "trainer.quiet=true", "trainer.precision=bf16"]
    assert start(command(monkeypatch, tmp_path, *same, *changed)).learner.config.quiet
    for other, key in (("strategy=naive", "strategy._target_"), ("seed=4", "seed")):
        line = [*same, f"resume={folder}", "trust=[tests]", other]
        with pytest.raises(ConfigurationError, match=f"cannot go on with another {key}"):
            start(command(monkeypatch, tmp_path, *line))


def test_what_follows_a_change_changes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`logger.console.quiet` is `trainer.quiet`."""
    same = ["strategy=simplecil", "logger=[console]"]
    folder = stopped(command(monkeypatch, tmp_path, *same), after=1)
    line = [*same, "trainer.quiet=true", f"resume={folder}", "trust=[tests]"]
    (logger,) = start(command(monkeypatch, tmp_path, *line)).loggers
    assert isinstance(logger, ConsoleLogger)
    assert logger.console.quiet


def test_a_logger_that_is_not_there_cannot_be_changed(folder: Path) -> None:
    changes = {"logger.wandb.mode": "offline"}
    assert "wandb" not in Experiment.resume(folder, [], ["tests"], changes).cfg.logger


def test_auto_and_latest_find_the_newest_unfinished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*typed: str) -> Experiment:
        return start(command(monkeypatch, tmp_path, "strategy=simplecil", *typed))

    with pytest.raises(ConfigurationError, match="resume=latest: in"):
        begin("resume=latest")
    first = stopped(begin("resume=auto").cfg)
    folder = stopped(begin().cfg, after=1)
    assert first < folder, "the names tell the time"
    for word in ("auto", "latest"):
        found = begin(f"resume={word}", "trainer.quiet=true")
        assert (found.folder, found.matrix.rows) == (folder, 1)
        assert found.learner.config.quiet
        assert begin(f"resume={word}").learner.config.quiet is False
    found.run()
    assert begin("resume=auto").folder == first, "the newest is complete"
    for other in ("seed=1", "trainer.epochs=5", "trainer.precision=bf16"):
        new = begin("resume=auto", other)
        assert new.folder not in (first, folder)
        with pytest.raises(ConfigurationError, match="resume=latest"):
            begin("resume=latest", other)
    begin("resume=auto").run()
    assert begin("resume=auto").folder not in (first, folder)


def test_a_checkpoint_inside_an_experience_that_turns_out_unfit_is_passed_over(
    compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, whole = midway(compose)
    for each in Checkpoints(folder).midway(1):
        edit(each / "training.json", lambda content: content["training"].pop("groups"))
    experiment = resume(folder)
    assert experiment.midway is not None
    summary = experiment.run()
    assert capsys.readouterr().err.count("The checkpoint before it is taken.") == 2
    assert experiment.matrix == whole.matrix
    assert summary["run"] == load_json(folder / "run.json")["id"]
