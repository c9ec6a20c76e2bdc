"""Names from outside: what becomes of them, and what is no name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cl.errors import DataError
from cl.names import cell, class_name, class_names, shown


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("ant", "ant"),
        (" ant\t", "ant"),
        ("cafe\u0301", "café"),
        ("a b", "a b"),
        ("a\nb", "a\\nb"),
        ("a\u2028b", "a\\u2028b"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\x9b31mb", "a\\x9b31mb"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2066b", "a\\u2066b"),
        ("caf\udce9", "caf\\udce9"),
        ("שלום", "שלום"),
        ("👩\u200d🌾", "👩\u200d🌾"),
        (np.str_("ant"), "ant"),
        (7, "7"),
        (np.uint8(7), "7"),
        (np.int64(-7), "-7"),
    ],
)
def test_what_becomes_of_a_label(value: Any, name: str) -> None:
    assert class_name(value) == name
    assert class_name(name) == name


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1.0, r"1\.0 \(float\).*astype\(int\)"),
        (np.float32(1), r"float32.*astype\(int\)"),
        (float("nan"), "nan .*no label is missing"),
        (True, r"True \(bool\).*astype\(int\)"),
        (np.bool_(True), "bool"),
        (b"ant", "bytes.*decode"),
        (np.bytes_(b"ant"), "bytes.*astype"),
        (np.eye(3)[0], "one-hot"),
        (np.array([4]), "out of a column"),
        ([4], "out of a column"),
        (np.array(4), "column"),
        (None, "None"),
        ("", "must not be blank"),
        (" \n", "must not be blank"),
    ],
)
def test_what_is_no_label(value: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        class_name(value)


@pytest.mark.parametrize("twin", ["cafe\u0301", "café ", "\tcafé"])
def test_twins_are_an_error_that_names_both(twin: str) -> None:
    with pytest.raises(
        DataError, match=r"photos: 'caf\\xe9' and .* are both the class café"
    ) as told:
        class_names(["ant", "café", twin], "photos")
    assert ascii(twin) in str(told.value)
    assert class_names(["ant", "café"], "photos") == ("ant", "café")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+cmd", "'+cmd"),
        ("-1+2", "'-1+2"),
        ("@SUM", "'@SUM"),
        (" =1", "' =1"),
        ("\t=1", "\\t=1"),
        ("＝1", "'＝1"),
        ("-1", "-1"),
        ("+3.5", "+3.5"),
        ("a=b", "a=b"),
        ("a\rb", "a\\rb"),
    ],
)
def test_no_cell_is_a_formula(text: str, safe: str) -> None:
    assert cell(text) == safe


def test_no_character_that_is_obeyed_is_left() -> None:
    import unicodedata

    every = "".join(map(chr, range(0x110000)))
    left = {
        unicodedata.category(c) for c in shown(every).replace("\u200c", "").replace("\u200d", "")
    }
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
