from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

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


class Several:
    def __init__(
        self,
        sizes: Sequence[int] = (),
        names: list[str] | None = None,
        rates: dict[str, float] | None = None,
        kind: Literal["a", "b"] = "a",
        thing: Thing | None = None,
        rows: Sequence[Sequence[int]] = (),
    ) -> None:
        self.sizes, self.names, self.rates, self.kind = sizes, names, rates, kind
        self.thing, self.rows = thing, rows


@pytest.mark.parametrize(
    "arguments",
    [
        {"sizes": [1, 2], "names": ["x"], "rates": {"x": 1}, "kind": "b"},
        {"names": None, "rates": None, "sizes": [], "rows": [[1], []]},
        {"thing": "whatever takes it, checks it"},
    ],
)
def test_lists_and_dictionaries_are_taken(arguments: dict[str, Any]) -> None:
    several = build({"_target_": "tests.cl.test_instantiate.Several", **arguments}, "several")
    assert {key: getattr(several, key) for key in arguments} == arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sizes": 3}, r"several\.sizes=3: it must be Sequence\[int\], not int"),
        ({"sizes": "12"}, r"several\.sizes=12"),
        ({"sizes": ["1"]}, r"several\.sizes="),
        ({"sizes": [1, None]}, r"several\.sizes="),
        ({"sizes": {"a": 1}}, r"several\.sizes="),
        ({"names": "x"}, r"several\.names=x: it must be list\[str\] or null, not str"),
        ({"names": [[]]}, r"several\.names="),
        ({"rates": [1]}, r"several\.rates="),
        ({"rates": {"x": "y"}}, r"several\.rates="),
        ({"kind": "c"}, r"several\.kind=c: it must be a or b"),
        ({"kind": ["a"]}, r"several\.kind="),
        ({"rows": [1]}, r"several\.rows="),
    ],
)
def test_lists_and_dictionaries_are_checked(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        build({"_target_": "tests.cl.test_instantiate.Several", **arguments}, "several")
