"""docs/architecture.md: what it lists is what there is."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import pytest

from cl.strategy import Hooks, Plugin, Progress, Run, Strategy
from tests.docs.pages import DOCS, ROOT

PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
HELPERS = {"log", "generator", "batches", "prepare", "grow_head", "cross_entropy"}


def section(text: str, heading: str) -> str:
    """What stands below a heading."""
    found = re.search(rf"^(#+) {heading}\n(.*?)(?=^#{{1,3}} |\Z)", text, re.M | re.S)
    assert found is not None, heading
    return found[2]


def listed(table: str) -> dict[str, list[str]]:
    """The hooks in the first column of a table, and the names of their arguments."""
    cells = re.findall(r"^\| (`.*?`) \|", table, re.M)
    calls = re.findall(r"`(\w+)\((.*?)\)`", " ".join(cells))
    return {name: arguments.split(", ") if arguments else [] for name, arguments in calls}


def hooks(*kinds: type) -> dict[str, list[str]]:
    """The public methods of these classes, but for helpers, and the names of their arguments."""
    found = {}
    for kind in kinds:
        for name, method in vars(kind).items():
            if inspect.isfunction(method) and not name.startswith("_") and name not in HELPERS:
                found[name] = list(inspect.signature(method).parameters)[1:]
    return found


def test_every_module_is_in_the_floor_plan_once() -> None:
    shown = re.findall(r"^- `(cl/[\w/]+\.py)`: ", PAGE, re.M)
    there = [
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "cl").rglob("*.py")
        if file.name != "__init__.py"
    ]
    assert sorted(shown) == sorted(there)


def test_every_folder_is_in_the_floor_plan() -> None:
    shown = set(re.findall(r"^\| `(\w+)/` ", section(PAGE, "The floor plan"), re.M))
    assert all((ROOT / name).is_dir() for name in shown)
    assert {file.parent.name for file in ROOT.glob("*/__init__.py")} <= shown


def test_every_group_of_configurations_is_named() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| `configs/`"))
    groups = {path.name for path in (ROOT / "configs").iterdir() if path.is_dir()}
    assert groups - {"__pycache__"} <= set(re.findall(r"`(\w+)`", row))


def test_every_hook_of_a_strategy_is_in_the_table() -> None:
    assert listed(section(PAGE, "Strategy")) == hooks(Hooks, Strategy)


def test_every_hook_that_differs_in_a_plugin_is_in_the_table() -> None:
    expected = {**hooks(Plugin), "penalty": []}
    assert listed(section(PAGE, "Plugin")) == expected


def test_the_other_pages_have_the_same_hooks() -> None:
    beginner = (DOCS / "first_strategy.md").read_text(encoding="utf-8")
    assert listed(section(beginner, "The hooks")) == hooks(Hooks, Strategy)
    extending = (DOCS / "extending.md").read_text(encoding="utf-8")
    table = listed(section(extending, "A plugin"))
    known = {**hooks(Hooks), **hooks(Plugin)}
    assert table == {name: known[name] for name in table}
    assert table.keys() | {"loss"} == hooks(Plugin).keys() | {"order"}


@pytest.mark.parametrize("kind", [Run, Progress])
def test_every_field_that_a_method_is_given_is_named(kind: type) -> None:
    text = section(PAGE, "What the framework gives a method")
    assert {field.name for field in fields(kind)} <= set(re.findall(r"`(\w+)`", text))  # type: ignore[arg-type]


def test_what_a_strategy_declares_is_named() -> None:
    declared = {
        name
        for kind in (Hooks, Strategy)
        for name in inspect.get_annotations(kind)
        if name not in ("run", "objective")
    }
    assert declared <= set(re.findall(r"`(\w+)`", section(PAGE, "Strategy")))
