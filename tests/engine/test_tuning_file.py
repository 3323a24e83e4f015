"""The cache of measured batch sizes: whatever is in it, it is measured again."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from streamer.engine.model import Model
from streamer.engine.tuner import tune
from tests.toys import toy_model

ODD = {
    "deep": "[" * 100_000,
    "deep and closed": '{"a": ' + "[" * 5000 + "]" * 5000 + "}",
    "digits": '{"a": ' + "9" * 5000 + "}",
    "a list": "[]",
    "nothing": "",
    "bytes": "\ud800",
    "long": " " * 2**21 + "{}",
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_no_content_of_it_stops_a_start(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    cache = tmp_path / "tuning.json"
    cache.write_bytes(ODD[name].encode("utf-8", "surrogatepass"))
    found = tune(Model.load(toy_model(tmp_path)), 4, cache)
    assert found.batch >= 1
    assert "measuring again" in caplog.text
    assert str(cache) in str([record.__dict__ for record in caplog.records])
    assert json.loads(cache.read_text())


@pytest.mark.parametrize(
    "entry", [None, 3, [], {}, {"batch": "x"}, {"batch": 4, "pays": 1, "wait": "0"}, {"batch": 10**30, "more": 1}]
)
def test_no_odd_entry_of_it_is_believed(tmp_path: Path, entry: object) -> None:
    cache, model = tmp_path / "tuning.json", Model.load(toy_model(tmp_path))
    tune(model, 4, cache)
    (key,) = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: entry}))
    assert 1 <= tune(model, 4, cache).batch <= 4
