"""Bytes, JSON values and arrays as rows of a model: what is taken, and which sentence refuses the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.contract.manifest import Manifest
from streamer.refusals import BadRows
from streamer.streams.rows import RowReader, to_array


def reader(*inputs: dict[str, Any], conditions: list[dict[str, Any]] | None = None) -> RowReader:
    first, *more = ({"dtype": "float32", "chunk_shape": [2, 3], **spec} for spec in inputs)
    manifest = Manifest.model_construct(
        input=_input({"step_seconds": 0.0, **first}),
        more_inputs=tuple(_input({"step_seconds": 0.0, **spec}) for spec in more),
        conditions=tuple(_condition(spec) for spec in conditions or []),
    )
    return RowReader(manifest)


def _input(spec: dict[str, Any]) -> Any:
    from streamer.contract.manifest import Input

    return Input.model_validate({**spec, "chunk_shape": tuple(spec["chunk_shape"])})


def _condition(spec: dict[str, Any]) -> Any:
    from streamer.contract.manifest import Condition

    return Condition.model_validate({**spec, "shape": tuple(spec["shape"])})


VECTOR = reader({"name": "x"})
SCALAR = reader({"name": "t", "dtype": "int16", "chunk_shape": [4]})
BOTH = reader({"name": "x"}, {"name": "y", "dtype": "int16", "chunk_shape": [2]})
FLAGS = reader({"name": "b", "dtype": "bool", "chunk_shape": [1]})


def test_the_same_rows_by_every_way() -> None:
    values = [[1.0, 2.0, 3.0], [4.0, 5.0, None]]
    by_values = VECTOR.of_values(values)
    by_bytes = VECTOR.of_bytes(np.array([[1, 2, 3], [4, 5, np.nan]], "<f4").tobytes())
    by_arrays = VECTOR.of_inputs({"x": np.array([[1, 2, 3], [4, 5, np.nan]], np.float32)})
    for rows in (by_values, by_bytes, by_arrays):
        assert rows.dtype == VECTOR.dtype
        np.testing.assert_array_equal(rows["x"], np.array([[1, 2, 3], [4, 5, np.nan]], np.float32))


def test_rows_of_one_number_are_plain() -> None:
    assert SCALAR.of_values([1, 2.0, -3]).tolist() == [1, 2, -3]
    assert SCALAR.of_bytes(b"\x01\x00\xff\xff").tolist() == [1, -1]
    assert SCALAR.of_values([]).tolist() == []


def test_several_inputs_go_by_name() -> None:
    rows = BOTH.of_inputs({"x": [[1, 2, 3]], "y": [7]})
    again = BOTH.of_values([{"y": 7, "x": [1, 2, 3]}])
    assert rows.tobytes() == again.tobytes() == np.array([1, 2, 3], "<f4").tobytes() + b"\x07\x00"
    assert BOTH.of_bytes(rows.tobytes())["y"].tolist() == [7]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VECTOR.of_bytes(bytes(13)), r"13 bytes are no whole number of rows of 12 bytes \(x float32 \[3\]\)"),
        (lambda: FLAGS.of_bytes(b"\x01\x02"), "'b' is bool: a byte of it is 0 or 1, not 2"),
        (lambda: VECTOR.of_values([[1, 2]]), r"a row of input 'x' has the shape \[2\]: x float32 \[3\] is expected"),
        (lambda: VECTOR.of_values([1, 2, 3]), r"shape \[\]: x float32 \[3\] is expected"),
        (lambda: VECTOR.of_values([[1, 2, 3], [1]]), r"input 'x' has rows of different shapes: \[\[1, 2, 3\], \[1\]\]"),
        (lambda: VECTOR.of_values([["a", 2, 3]]), "input 'x' is float32, not text"),
        (lambda: VECTOR.of_values([[1e300, 2, 3]]), "input 'x' is float32: 1e\\+300 is too large"),
        (lambda: VECTOR.of_values("abc"), "input 'x' is a list of rows"),
        (lambda: VECTOR.of_values([[None, "b", 1]]), "input 'x' is float32: numbers or null"),
        (lambda: VECTOR.of_values({"x": 1}), "input 'x' is a list of rows"),
        (lambda: SCALAR.of_values([40000]), "input 't' is int16, from -32768 to 32767: 40000 to 40000 came"),
        (lambda: SCALAR.of_values([1.5]), "input 't' is int16: whole numbers, not 1.5"),
        (lambda: SCALAR.of_values([None]), "input 't' is int16: every number must be there"),
        (lambda: SCALAR.of_values([2**80]), "input 't' is int16: every number must be there, and fit"),
        (lambda: FLAGS.of_values([2]), "input 'b' is bool: true, false, 0 or 1"),
        (lambda: BOTH.of_inputs({"x": [[1, 2, 3]]}), r"exactly the inputs x float32 \[3\], y int16, not x"),
        (lambda: BOTH.of_inputs({"x": [[1, 2, 3]], "y": [1, 2]}), "here there are 1 of 'x', 2 of 'y'"),
        (lambda: BOTH.of_values([[1, 2, 3]]), "the model has several inputs: give each row by its names"),
        (lambda: BOTH.of_values([{"x": [1, 2, 3]}]), "row 0 must have exactly the inputs"),
    ],
)
def test_what_does_not_fit_is_named(call: Any, message: str) -> None:
    with pytest.raises(BadRows, match=message):
        call()


def test_conditions_are_checked_by_name_shape_and_limits() -> None:
    model = reader(
        {"name": "x"},
        conditions=[
            {"name": "speaker", "dtype": "float32", "shape": [2]},
            {"name": "mode", "dtype": "int64", "shape": [1], "limits": (0, 3)},
        ],
    )
    found = model.conditions({"speaker": [1, 2]})
    assert list(found) == ["speaker"]
    assert found["speaker"].dtype == np.float32
    for given_, message in [
        ({"voice": [1]}, r"no condition 'voice': the model has speaker float32 \[2\], mode int64 \[1\]"),
        ({"speaker": [1]}, r"condition 'speaker' has the shape \[1\]: speaker float32 \[2\]"),
        ({"mode": [4]}, "condition 'mode' is from 0 to 3"),
    ]:
        with pytest.raises(BadRows, match=message):
            model.conditions(given_)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y"]), inner),
        max_leaves=12,
    )
)
def test_any_json_is_rows_or_a_refusal(values: Any) -> None:
    for model in (VECTOR, SCALAR, BOTH, FLAGS):
        try:
            rows = model.of_values(values)
        except BadRows:
            continue
        assert rows.dtype == model.dtype
        assert rows.ndim == 1


@given(
    st.lists(st.floats(width=32) | st.none(), max_size=5),
)
def test_floats_come_through_unchanged(values: list[float | None]) -> None:
    expected = np.array([np.nan if v is None else v for v in values], np.float32)
    np.testing.assert_array_equal(to_array(values, "float32", "x"), expected)
