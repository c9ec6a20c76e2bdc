"""Lightning Fabric comes without what it does not need."""

from __future__ import annotations

import json
import sys

import pytest

from cl.fabric import out_of_reach


def test_a_package_is_out_of_reach_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with out_of_reach("wave"), pytest.raises(ModuleNotFoundError):
        import wave
    import wave

    assert wave.open


def test_a_package_that_is_there_stays() -> None:
    with out_of_reach("json"):
        import json as same
    assert same is json
    assert sys.modules["json"] is json


def test_after_an_error_the_package_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with pytest.raises(RuntimeError), out_of_reach("wave"):
        raise RuntimeError
    import wave

    assert wave.open
