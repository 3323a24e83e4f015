"""What the query of POST /v1/readings may hold."""

from __future__ import annotations

import pytest
from starlette.datastructures import QueryParams

from streamer.serve.documents.operations import COLUMNS
from streamer.serve.readings.parameters import PARAMETERS, reading_query
from streamer.serve.readings.parsed import BodyError


def test_the_document_has_the_same_parameters() -> None:
    assert set(COLUMNS) == set(PARAMETERS)


@pytest.mark.parametrize("decimal", ["", ".", ","])
def test_a_decimal_mark(decimal: str) -> None:
    assert reading_query(QueryParams({"decimal": decimal})).columns.decimal == decimal


@pytest.mark.parametrize(
    "query", ["decimal=comma", "decimal=x", "decimal=.,", "zone=Mars", "forecast=2", "stream=a&stream=b"]
)
def test_a_value_that_is_not_known(query: str) -> None:
    with pytest.raises(BodyError) as raised:
        reading_query(QueryParams(query))
    assert raised.value.status == 400
    assert query.partition("=")[0] in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "meant"), [("zon", "zone"), ("time_fromat", "time_format"), ("model_", "model"), ("decimals", "decimal")]
)
def test_a_misspelt_parameter(wrong: str, meant: str) -> None:
    with pytest.raises(BodyError, match=f"{wrong}.*did you mean {meant}"):
        reading_query(QueryParams({wrong: "x"}))


def test_names_of_columns_keep_their_places() -> None:
    columns = reading_query(QueryParams("columns=time,, value&missing=-1&missing=-2"), ("x",)).columns
    assert (columns.names, columns.missing) == (("time", "", "value"), ("x", "-1", "-2"))
