"""A strategy that was written by the command runs as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import configs
from cl.errors import ConfigurationError
from cl.new import create_strategy

ROOT = Path(configs.__file__).parent.parent


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_written_strategy_runs_and_its_test_passes(tmp_path: Path) -> None:
    written = call("-m", "cl.new", "strategy", "my_method", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert "palimpsest --config-dir my_configs strategy=my_method" in written.stdout
    tested = call("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_method.py", cwd=tmp_path)
    assert "3 passed" in tested.stdout, tested.stdout
    options = ["--config-dir", "my_configs", "strategy=my_method", "stream.tasks=2"]
    options += ["backbone.image_size=8", "trainer.epochs=1", "logger=[files]"]
    ran = call(str(ROOT / "run.py"), *options, "logger.files.report=false", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (folder,) = (tmp_path / "runs" / "split_digits" / "my_method").glob("*/*")
    assert (folder / "summary.json").exists()
    assert '"penalty"' in (folder / "metrics.jsonl").read_text()


def test_in_a_checkout_the_files_go_where_the_others_are(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "configs" / "strategy").mkdir(parents=True)
    (tmp_path / "run.py").touch()
    files, commands = create_strategy(tmp_path, "my_method")
    assert [str(file) for file in files] == [
        "strategies/my_method.py",
        "configs/strategy/my_method.yaml",
        "tests/strategies/test_my_method.py",
    ]
    assert commands[0] == "python run.py strategy=my_method"
    assert "strategies.my_method.MyMethod" in (tmp_path / files[1]).read_text()


def test_nothing_is_overwritten_and_names_are_checked(tmp_path: Path) -> None:
    create_strategy(tmp_path, "my_method")
    with pytest.raises(ConfigurationError, match="is there already"):
        create_strategy(tmp_path, "my_method")
    for name in ("MyMethod", "../up", "class", "a-b", ""):
        with pytest.raises(ConfigurationError, match="a name begins with a small letter"):
            create_strategy(tmp_path, name)
    with pytest.raises(ConfigurationError, match="a package of this name is installed"):
        create_strategy(tmp_path, "torch")
