"""A model in this process gives what one call gives: whatever the split, and over a save in between."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamer
from streamer.refusals import BadRows
from streamer.streams.local import LocalModel
from streamer.streams.snapshot import SnapshotError
from tests.rows import row_model, some_rows


@pytest.fixture(scope="module", params=["one", "four", "several"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    kind: dict[str, Any] = {
        "one": {},
        "four": {"chunk": 4},
        "several": {"chunk": 4, "several": True, "condition": True},
    }
    return streamer.load(row_model(tmp_path_factory.mktemp("local"), name=request.param, **kind[request.param]))


def inputs(model: LocalModel, count: int) -> dict[str, Any]:
    rows = some_rows(1, count, several=len(model.manifest.inputs) > 1)
    return {name: rows[name] for name in rows.dtype.names or ()}


def conditions(model: LocalModel) -> dict[str, Any]:
    return {c.name: np.full(c.shape, 0.25, c.dtype) for c in model.manifest.conditions}


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 23), max_size=6), saved=st.integers(0, 23))
def test_any_split_and_a_save_give_what_one_call_gives(model: LocalModel, cuts: list[int], saved: int) -> None:
    rows = inputs(model, 23)
    whole = model.stream(conditions(model))
    expected = [whole.step(rows), whole.finish()]
    stream = model.stream(conditions(model))
    parts = []
    edges = sorted({0, 23, saved, *cuts})
    for begin, end in pairwise(edges):
        if begin == saved:
            stream = model.restore(stream.save())
        parts.append(stream.step({name: array[begin:end] for name, array in rows.items()}))
    parts.append(stream.finish())
    assert stream.position == 23
    for name in expected[0]:
        one = np.concatenate([part[name] for part in expected])
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), one)
        assert len(one) in (23, 12)  # the output with one row for two has half as many


def test_one_row_needs_no_axis(tmp_path: Path) -> None:
    model = streamer.load(row_model(tmp_path))
    assert model.stream().step(inputs(model, 1)["x"][0])["z"].shape == (1, 2)


def test_rows_that_do_not_fit_are_named_and_not_taken(model: LocalModel) -> None:
    stream = model.stream()
    rows = inputs(model, 2)
    with pytest.raises(BadRows, match="x float32"):
        stream.step({**rows, "x": np.zeros((2, 5))})
    with pytest.raises(BadRows, match="inputs"):
        stream.step({"nobody": [1.0]})
    with pytest.raises(BadRows, match="condition"):
        model.stream({"mood": [1.0]})
    assert stream.position == 0


def test_behind_the_end_nothing_is_taken(model: LocalModel) -> None:
    stream = model.stream()
    stream.step(inputs(model, 6))
    stream.finish()
    for ended in (stream, model.restore(stream.save())):
        with pytest.raises(RuntimeError, match="ended"):
            ended.step(inputs(model, 8))
        with pytest.raises(RuntimeError, match="ended"):
            ended.finish()
        assert ended.position == 6


def test_a_snapshot_of_another_file_is_refused(model: LocalModel, tmp_path: Path) -> None:
    other = streamer.load(row_model(tmp_path, name="other", chunk=2))
    with pytest.raises(SnapshotError, match="another file"):
        model.restore(other.stream().save())
    data = bytearray(model.stream().save())
    data[-1] ^= 1
    with pytest.raises(SnapshotError, match="damaged"):
        model.restore(bytes(data))
