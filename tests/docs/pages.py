"""The code blocks of a page, and a folder to run them in as a reader would."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import configs

ROOT = Path(configs.__file__).parent.parent
DOCS = ROOT / "docs"

SMALL = "backbone.image_size=8"
"""Added to the runs of most pages, so that they take seconds: the digits are read at 8 × 8 pixels."""


@dataclass(frozen=True)
class Block:
    """A fenced block. title: the file that it is the content of, if it says so. line: where it begins."""

    language: str
    title: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", text, re.M | re.S)
    made = [Block(m[1], m[2], m[3], text[: m.start()].count("\n") + 1) for m in found]
    assert text.count("\n```") == 2 * len(made), f"{page}: a fence that is not understood"
    return made


class Reader:
    """Does what a page says in a folder of its own.

    A block with a title is written to that file. `sh` runs in bash, from the folder; `python` blocks share
    one interpreter; `text` is what the block before it printed, where … stands for anything.
    """

    def __init__(self, folder: Path, added: str = SMALL) -> None:
        self.folder, self.output = folder, ""
        self.names: dict[str, Any] = {"__name__": "__page__"}
        self.bin = folder.parent / f"{folder.name}-bin"
        self.bin.mkdir()
        self._command("python", f'exec "{sys.executable}" "$@"')
        self._command("pytest", f'exec "{sys.executable}" -m pytest -p no:cacheprovider "$@"')
        self._command("palimpsest", f'exec "{sys.executable}" "{ROOT}/run.py" "$@" {added}')

    def _command(self, name: str, line: str) -> None:
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)

    def read(self, block: Block) -> None:
        """Do what one block says; AssertionError when it does not do what the page promises."""
        if block.title:
            file = self.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif block.language == "sh":
            self._shell(block)
        elif block.language == "python":
            code = compile(block.text, f"line {block.line} of the page", "exec")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, self.names)
            self.output = printed.getvalue()
        elif block.language == "text":
            for line in block.text.splitlines():
                wanted = ".*".join(re.escape(part.strip()) for part in line.split("…"))
                assert re.search(wanted, self.output), f"{line!r} is not in\n{self.output}"
        else:
            raise AssertionError(f"line {block.line}: nobody runs a block in {block.language!r}")

    def _shell(self, block: Block) -> None:
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "COLUMNS": "140"}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CL_OFFLINE": "1"}
        environment.pop("PYTEST_CURRENT_TEST", None)
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        self.output = result.stdout + result.stderr
        assert result.returncode == 0, f"line {block.line}:\n{block.text}\n{self.output}"


def read_page(page: Path, folder: Path, added: str = SMALL) -> Reader:
    """Read a whole page in `folder`, where the caller must be. added: to the arguments of every run."""
    reader = Reader(folder, added)
    for block in blocks(page):
        reader.read(block)
    return reader
