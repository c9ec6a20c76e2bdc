"""The documents as a site, and every link in every document."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cl.strategies import GROUPS, markdown
from tests.docs.pages import DOCS, ROOT

README = ROOT / "README.md"
OUTSIDE = (README, *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY")))
"""Documents that are no page of the site."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Links(HTMLParser):
    """Where a page leads, what it loads, and the places in it that can be led to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if found.get("id"):
            self.anchors.add(str(found["id"]))
        if tag == "a" and found.get("href"):
            self.targets.append(str(found["href"]))
        if tag in ("script", "img", "link") and (found.get("src") or found.get("href")):
            self.loaded.append(str(found.get("src") or found["href"]))


def test_the_site_is_built_and_every_link_in_it_leads_somewhere(site: Path) -> None:
    pages = {page: Links(page) for page in site.glob("*.html") if page.name != "404.html"}
    assert {page.stem for page in pages} == {page.stem for page in DOCS.glob("*.md")}
    for page, links in pages.items():
        for target in [*links.targets, *links.loaded]:
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            file = file / "index.html" if file.is_dir() else file
            assert file.exists(), f"{page.name}: {target}"
            if anchor and file in pages and not anchor.startswith("__"):
                assert anchor in pages[file].anchors, f"{page.name}: {target}"


def test_the_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        foreign = [each for each in Links(page).loaded if re.match(r"https?:", each)]
        assert not foreign, f"{page.name} loads {foreign}"


@pytest.mark.parametrize("document", OUTSIDE, ids=lambda path: path.name)
def test_links_of_the_other_documents(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not re.match(r"https?:", target):
            assert (document.parent / target).exists(), target


def test_the_picture_in_the_readme_is_small() -> None:
    (picture,) = re.findall(r"!\[[^]]*\]\(([^)]+\.png)\)", README.read_text(encoding="utf-8"))
    content = (ROOT / picture).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 100_000


@pytest.mark.parametrize("kind", GROUPS)
def test_the_tables_in_the_readme_are_those_of_the_code(kind: str) -> None:
    assert markdown(kind) in README.read_text(encoding="utf-8"), (
        "README.md has another table of methods than the code. To write it again: "
        "python -m cl.strategies --readme README.md"
    )
