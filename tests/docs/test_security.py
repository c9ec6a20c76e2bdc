"""docs/security.md: its figures are those of the code, and the tests that it names are there."""

from __future__ import annotations

import re

import pytest

from cl import stored
from cl.data import archives, contents, decoding
from cl.experiment import KINDS
from tests.docs.pages import DOCS, ROOT

PAGE = (DOCS / "security.md").read_text(encoding="utf-8")

SENTENCES = [
    f"| a JSON file | {stored.JSON_BYTES >> 20} MB |",
    f"| a YAML file | {stored.YAML_BYTES >> 10} KB, {stored.TEXT_LENGTH:,} characters in a value |",
    f"| a configuration | {stored.VALUES:,} values, {stored.DEPTH} deep |",
    f"| {stored.LINES_BYTES >> 20:,} MB, {stored.LINE_BYTES >> 20} MB in a line |",
    f"At most {decoding.PIXELS / 1e6:.0f} million pixels",
    f"**Formats.** {', '.join(decoding.FORMATS)}, and AVIF",
    f"more than {archives.RATIO} times the archive's own size ({archives.SMALL >> 20} MB are always",
    f"all pixels up to {contents.WHOLE_BYTES / 1e6:.0f} MB of stored images",
    f"a sample of {contents.SAMPLE}",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_limits_are_those_of_the_code(sentence: str) -> None:
    assert sentence in " ".join(PAGE.split("\n"))


def test_the_sections_are_those_that_are_checked() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| `(\w+)` \|$", PAGE, re.M))
    assert rows == {section: kind.package for section, kind in KINDS.items()}


def test_the_tests_and_programs_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)
    assert len(named) > 20
    for file in named:
        assert (ROOT / file).is_file(), file
    for program in re.findall(r"python -m (benchmarks\.\w+)", PAGE):
        assert (ROOT / program.replace(".", "/") / "__main__.py").is_file(), program
