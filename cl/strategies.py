"""What there is:  python -m cl.strategies  lists the strategies and plugins,  … show olora  tells of one.

Nothing is named here: the configurations name the classes, and the classes say what they are.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cl.errors import ConfigurationError, PalimpsestError, require, suggest
from cl.instantiate import locate

GROUPS = ("strategy", "plugin")
COLUMNS = (
    "name",
    "what it is",
    "source",
    "setting",
    "grows with the tasks",
    "cost besides fine-tuning",
)
SETTINGS = {"rehearsal": "rehearsal", "needs_task_id": "task id", "gradient_free": "gradient-free"}


@dataclass(frozen=True)
class Method:
    """A strategy or a plugin: its name, its class, its configuration file and the command in it."""

    kind: str
    name: str
    cls: type[Any]
    config: DictConfig
    command: str

    @property
    def description(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.cls) or ""

    @property
    def source(self) -> str:
        """The first "(authors, year)" of the docstring."""
        found = re.search(r"\(([^()]*\b(?:19|20)\d\d[^()]*)\)", self.description)
        return found[1] if found else "–"

    @property
    def title(self) -> str:
        """The first sentence of the docstring, without its source."""
        first = re.split(r"\.\s|\.$", self.description.replace("\n", " "), maxsplit=1)[0]
        return re.sub(r"\s*\([^()]*\b(?:19|20)\d\d[^()]*\)", "", first).strip()

    @property
    def row(self) -> list[str]:
        """The cells of the table, as `COLUMNS`."""
        setting = [shown for name, shown in SETTINGS.items() if getattr(self.cls, name, False)]
        grows = str(getattr(self.cls, "grows", ""))
        return [self.name, self.title, self.source, ", ".join(setting), grows, self.cls.cost]


def methods(kind: str, own: Path | None = None) -> list[Method]:
    """All that the folder `configs/<kind>` describes, by name, and then those of the user's `own/<kind>`."""
    found = []
    shipped = Path(str(resources.files("configs"))) / kind
    mine = sorted((own / kind).glob("*.yaml")) if own else []
    for file in [*sorted(shipped.glob("*.yaml")), *mine]:
        if file == shipped / "custom.yaml":
            continue
        config = OmegaConf.load(file)
        assert isinstance(config, DictConfig)
        node = config if kind == "plugin" else config.get("strategy")
        require(node is not None and "_target_" in node, f"{file}: it names no class (_target_).")
        cls: Any = locate(str(node._target_), str(file))
        lines = file.read_text(encoding="utf-8").splitlines()
        command = next((line[2:] for line in lines if line.startswith("# python")), "")
        found.append(Method(kind, file.stem, cls, config, command))
    return found


def table(kind: str, own: Path | None = None) -> Table:
    """The methods of a kind for the console."""
    made = Table(title="strategy=…" if kind == "strategy" else "plugin=[…]")
    for name in COLUMNS:
        made.add_column(name, no_wrap=name == "name", overflow="fold")
    for method in methods(kind, own):
        made.add_row(*map(escape, method.row))
    return made


def markdown(kind: str) -> str:
    """The same table for a document."""
    rows = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for method in methods(kind):
        name, *rest = (cell.replace("|", "\\|") for cell in method.row)
        rows.append([f"`{name}`", *rest])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def refresh(file: Path) -> None:
    """Write the tables of strategies and plugins in a document again, each where it is now."""
    text = file.read_text(encoding="utf-8")
    header = re.escape(f"| {' | '.join(COLUMNS)} |")
    parts = re.split(rf"^{header}\n(?:\|.*\n)*", text, flags=re.M)
    require(
        len(parts) == len(GROUPS) + 1,
        f"--readme {file}: it must hold {len(GROUPS)} tables that begin with {' | '.join(COLUMNS)}.",
    )
    tables = [f"{markdown(kind)}\n" for kind in GROUPS]
    pairs = zip(parts, [*tables, ""], strict=True)
    file.write_text("".join(part + made for part, made in pairs), encoding="utf-8")


def describe(name: str, own: Path | None = None) -> str:
    """What the class says of itself, its defaults and its command; ConfigurationError if there is none."""
    everything = [method for kind in GROUPS for method in methods(kind, own)]
    chosen = [method for method in everything if method.name == name]
    if not chosen:
        near = suggest(name, [method.name for method in everything])
        raise ConfigurationError(
            f"show {name}: there is no strategy or plugin of this name. {near}"
        )
    return "\n\n".join(
        f"{method.name} ({method.kind})\n\n{method.description}\n\n"
        f"{OmegaConf.to_yaml(method.config)}\n{method.command}"
        for method in chosen
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cl.strategies", description=__doc__)
    parser.add_argument("show", nargs="*", help="show NAME: its description and defaults")
    parser.add_argument("--markdown", action="store_true", help="tables for a document")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="refresh the tables in FILE")
    parser.add_argument("--config-dir", type=Path, metavar="FOLDER", help="list your own ones, too")
    given = parser.parse_args(argv)
    own: Path | None = given.config_dir
    console = Console() if sys.stdout.isatty() else Console(width=140)
    try:
        require(own is None or own.is_dir(), f"--config-dir {own}: there is no such folder.")
        if given.show:
            if given.show[0] != "show" or len(given.show) != 2:
                parser.error("type: show NAME")
            console.print(
                describe(given.show[1], own), markup=False, highlight=False, soft_wrap=True
            )
            return
        if given.readme:
            refresh(given.readme)
            return
        for kind in GROUPS:
            if given.markdown:
                print(markdown(kind) + "\n")
            else:
                console.print(table(kind, own))
    except PalimpsestError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
