"""Numbers as people and programs write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sources.tables.numbers import MISSING, NumberError, Numbers, Sentinels, evidence

VALUES = st.floats(-1e9, 1e9).map(lambda value: round(value, 3))


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("20.4", 20.4),
        ("20,4", 20.4),
        ("1.234,5", 1234.5),
        ("1,234.5", 1234.5),
        ("1.234.567", 1234567),
        ("1,23,456.7", 123456.7),
        ("1 234,5", 1234.5),
        ("1\u202f234.5", 1234.5),
        ("1\u00a0234", 1234),
        ("1'234.5", 1234.5),
        ("1\u2019234", 1234),
        ("\u22125", -5),
        ("+5", 5),
        (".5", 0.5),
        ("1,5E+03", 1500),
        ("45 %", 45),
        ("20.4°C", 20.4),
        ("230 V", 230),
        ("0,25 €", 0.25),
        ("$1,234.50", 1234.5),
        ('="20.4"', 20.4),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_what_can_mean_one_thing_is_read(cell: str, value: float) -> None:
    assert Numbers()(cell) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "cell",
    ["0x1F", "1_0", "12 34", "5 apples", "12a", "1.2.3", "10:00", "2024-05-01", "1,2,3", "5-", "(5)", "1.2k", "--5"],
)
def test_what_is_no_number_is_refused(cell: str) -> None:
    with pytest.raises(NumberError, match="is no number"):
        Numbers()(cell)


@pytest.mark.parametrize("word", [*sorted(MISSING), "NaN", "Unavailable", " N/A ", "1e400", "-1e30"])
def test_words_for_no_value(word: str) -> None:
    assert Numbers()(word) is None


def test_what_the_user_says_stands_for_no_value() -> None:
    numbers = Numbers(sentinels=Sentinels.of(["-999", "Err", "\u221285"]))
    assert [numbers(cell) for cell in ("-999", "-999.0", "-999,0", "err", "-85", "5")] == [None] * 5 + [5]


def test_a_mark_that_may_be_either_is_decided_by_the_column_or_refused() -> None:
    with pytest.raises(NumberError, match=r"is 1\.234 or 1234: say which with --decimal"):
        Numbers()("1,234")
    assert Numbers(decimal=",")("1,234") == Numbers(lean=",")("1,234") == 1.234
    assert Numbers(decimal=".")("1,234") == Numbers(decimal=",")("1.234") == 1234
    assert Numbers()("1.234") == 1.234
    column = Numbers()
    assert [column(cell) for cell in ("20,4", "1,234", "1.234")] == [20.4, 1.234, 1234]
    with pytest.raises(NumberError, match="its column has decimal commas"):
        column("20.45")


@pytest.mark.parametrize(
    ("cells", "marks"),
    [(["1.234"], ""), (["1,234"], ""), (["20,4"], ","), (["1.234,5"], ","), (["1,234.5"], "."), (["1.2", "1,2"], ".,"),
     (["1.234.567"], ","), (["roof", "-"], ""), (["0.123"], ".")],
)  # fmt: skip
def test_what_cells_prove(cells: list[str], marks: str) -> None:
    assert evidence(cells) == set(marks)


def test_a_column_keeps_its_unit() -> None:
    column = Numbers()
    assert column("5 kW") == 5
    with pytest.raises(NumberError, match="is in W, the cells before are in kW"):
        column("500 W")
    with pytest.raises(NumberError, match="is without a unit"):
        column("500")
    assert (column("6 kW"), column("-")) == (6, None)


@given(VALUES)
def test_a_number_in_every_way_of_writing(value: float) -> None:
    english, plain = f"{value:,.3f}", f"{value:.3f}"
    german = english.translate(str.maketrans(",.", ".,"))
    for decimal, cell in (
        (".", english),
        (",", german),
        ("", plain),
        (",", plain.replace(".", ",")),
        (".", f"{value!r}"),
    ):
        assert Numbers(decimal)(cell) == value
    assert Numbers()(german.replace(".", "\u202f").replace("-", "\u2212") if abs(value) >= 1e4 else plain) == value


@given(st.text(max_size=30))
def test_whatever_comes_is_a_number_or_missing_or_refused(cell: str) -> None:
    try:
        found = Numbers()(cell)
    except NumberError:
        return
    assert found is None or abs(found) < 1e30
