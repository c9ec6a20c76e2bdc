from __future__ import annotations

from typing import Any

import pytest

from cl.errors import ConfigurationError
from cl.instantiate import build, locate


class Thing:
    def __init__(
        self, size: int, rate: float = 0.5, name: str | None = None, on: bool = False
    ) -> None:
        self.size, self.rate, self.name, self.on = size, rate, name, on


def node(**arguments: Any) -> dict[str, Any]:
    return {"_target_": "tests.cl.test_instantiate.Thing", **arguments}


def test_builds_with_types_checked() -> None:
    thing = build(node(size=3, rate=1, name=None), "thing")
    assert (thing.size, thing.rate, thing.name) == (3, 1.0, None)
    assert isinstance(thing.rate, float), "a whole number is a number"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "large"}, "thing.size=large: it must be int, not str"),
        ({"size": 1.5}, "it must be int, not float"),
        ({"size": True}, "it must be int, not bool"),
        ({"size": 1, "name": 4}, "it must be str or null, not int"),
        ({"size": 1, "rte": 4}, "Thing has no such argument. Did you mean rate"),
        ({}, "give thing.size=…"),
    ],
)
def test_says_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(node(**arguments), "thing")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("Thing", "give package.module.Name"),
        (".os.system", "give package.module.Name"),
        ("os.../system.x", "give package.module.Name"),
        ("no_such_package.Thing", "there is no module no_such_package"),
        ("tests.cl.test_instantiate.Thig", "Did you mean Thing"),
    ],
)
def test_targets_that_are_not_there(path: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        locate(path, "thing")
