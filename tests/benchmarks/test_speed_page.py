"""The page of the speed programs: every claim, with its verdict, from the files alone."""

from __future__ import annotations

from typing import Any

from benchmarks import speed_page


def found(program: str, *claims: dict[str, Any]) -> dict[str, Any]:
    hardware = {"device": "cpu", "cpu": "Some CPU", "threads": 2}
    date = "2026-01-02T03:04:05+00:00"
    return {
        "program": program,
        "claims": list(claims),
        "repetitions": 3,
        "hardware": hardware,
        "date": date,
    }


def claim(text: str, value: float, target: float | None = None) -> dict[str, Any]:
    met = None if target is None else value <= target
    return {"text": text, "value": value, "target": target, "at_least": False, "met": met}


def test_a_row_per_claim_with_its_verdict() -> None:
    good, bad, told = claim("a / b", 1.0412, 1.05), claim("c / d", 2.0, 1.1), claim("e", 7.0)
    rows = speed_page.table([found("loop", good, bad, told | {"rounds": 1}), found("fisher")])[2:]
    where = "3 rounds, cpu (Some CPU, 2 threads), 2026-01-02"
    assert rows == [
        f"| `loop` | a / b | 1.04 | ≤ 1.05 | yes | {where} |",
        f"| `loop` | c / d | 2 | ≤ 1.1 | no | {where} |",
        f"| `loop` | e | 7 |  |  | {where.replace('3 rounds', '1 round')} |",
        "| `fisher` |  |  |  |  | not yet |",
    ]


def test_what_the_programs_wrote_can_be_shown() -> None:
    """The files in the repository, whichever there are."""
    programs = [speed_page.load(name) for name in speed_page.PROGRAMS]
    text = speed_page.generated(programs)
    assert all(f"`{name}`" in text for name in speed_page.PROGRAMS)
