"""The list of methods, made from the code."""

from __future__ import annotations

from pathlib import Path

import pytest

import configs
from cl.strategies import describe, main, markdown, methods

FOLDER = Path(configs.__file__).parent


@pytest.mark.parametrize("kind", ["strategy", "plugin"])
def test_every_configuration_is_in_the_list(kind: str) -> None:
    names = {file.stem for file in (FOLDER / kind).glob("*.yaml")} - {"custom"}
    listed = methods(kind)
    assert {method.name for method in listed} == names
    table = markdown(kind).splitlines()
    assert len(table) == 2 + len(names)
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    for method in listed:
        assert method.title
        assert method.command.startswith("python run.py")


def test_what_the_classes_say() -> None:
    found = {method.name: method for method in methods("strategy")}
    assert found["olora"].source == "Wang et al., 2023"
    assert found["olora"].title == "Orthogonal subspace learning"
    assert found["simplecil"].row[3] == "gradient-free"
    assert found["olora"].row[4] == "LoRA factors"
    assert found["naive"].source == "–"


def test_show_tells_the_description_and_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    main(["show", "olora"])
    shown = capsys.readouterr().out
    assert "rank: 8" in shown
    assert "alpha / rank" in shown
    assert "python run.py stream=split_cifar strategy=olora" in shown
    with pytest.raises(SystemExit, match="Did you mean olora"):
        main(["show", "olra"])
    assert "(plugin)" in describe("ema")


def test_the_tables_in_a_document_are_written_again(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    tables = {kind: f"{markdown(kind)}\n" for kind in ("strategy", "plugin")}
    text = "Before\n\n{strategy}\nbetween | these\n\n{plugin}\nafter\n"
    outdated = {kind: "\n".join(t.splitlines()[:2]) + "\n| old |\n" for kind, t in tables.items()}
    file.write_text(text.format(**outdated))
    main(["--readme", str(file)])
    assert file.read_text() == text.format(**tables)
    file.write_text("no table")
    with pytest.raises(SystemExit, match="it must hold 2 tables"):
        main(["--readme", str(file)])
    assert file.read_text() == "no table"


def test_ones_own_strategies_are_listed_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_listed_method.py").write_text(
        'from strategies.naive import Naive\n\n\nclass Mine(Naive):\n    """Mine (me, 2026)."""\n'
    )
    file = tmp_path / "my_configs" / "strategy" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("strategy:\n  _target_: my_listed_method.Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = ["--config-dir", str(tmp_path / "my_configs")]
    main(folder)
    shown = capsys.readouterr().out
    assert "olora" in shown
    assert "me, 2026" in shown
    main([*folder, "show", "mine"])
    assert "my_listed_method.Mine" in capsys.readouterr().out
    file.write_text("trainer:\n  lr: 1\n")
    with pytest.raises(SystemExit, match=r"mine.yaml: it names no class \(_target_\)"):
        main(folder)
    with pytest.raises(SystemExit, match="nowhere: there is no such folder"):
        main(["--config-dir", "nowhere"])


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    assert "simplecil" in shown
    assert "plugin=[…]" in shown
