"""What happens before a run begins: little is imported, and she who waits is told."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from cl.cli import load

HEAVY = (
    "torchmetrics",
    "transformers",
    "sklearn",
    "scipy",
    "pandas",
    "matplotlib",
    "jinja2",
    "avalanche",
)
"""What other parts need, or nobody; a second or less each."""


def test_a_run_begins_without_what_it_may_not_need() -> None:
    """In a process of its own, as the others have imported everything."""
    program = (
        "import sys, cl.cli; cl.cli.load()\n"
        "from streams.digits import split_digits; split_digits()\n"
        "import strategies.olora, torch\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert done.stderr.strip() == "Loading PyTorch …"


@pytest.mark.parametrize(
    ("quiet", "rank", "said"),
    [(False, None, "Loading PyTorch …\n"), (True, None, ""), (False, "1", "")],
)
def test_who_waits_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quiet: bool,
    rank: str | None,
    said: str,
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    load(quiet)
    assert capsys.readouterr().err == "", "torch is there"
    monkeypatch.delitem(sys.modules, "torch")
    load(quiet)
    assert capsys.readouterr().err == said
    assert gc.isenabled()


def test_the_collector_works_again_after_an_import_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setitem(sys.modules, "cl.sweep", None)
    with pytest.raises(ImportError):
        load()
    assert gc.isenabled()
