"""Loading a file: what is wrong with it is said before anybody streams into it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from streamer.contract.manifest import KEY
from streamer.engine import catalogue
from streamer.engine.catalogue import find_models, resolve
from streamer.engine.model import Model, ModelError
from streamer.engine.tuner import Tuning, best_batch, company, tune
from tests.toys import samples, toy_model


def changed(path: Path, into: Path, change: Any) -> Path:
    """A copy whose manifest was changed."""
    graph = onnx.load(path)
    document = json.loads(next(p.value for p in graph.metadata_props if p.key == KEY))
    change(document)
    del graph.metadata_props[:]
    helper.set_model_props(graph, {KEY: json.dumps(document)})
    onnx.save(graph, into)
    return into


def test_a_chunk_runs_by_name_whatever_the_order(toy: Path) -> None:
    model = Model.load(toy)
    feeds = {**model.zero_state(3), "pcm": np.stack([samples(i, 320) for i in range(3)])}
    outputs = model.run(feeds)
    again = model.run(dict(reversed(feeds.items())))
    assert outputs["log_probs"].shape == (3, 4, 3)
    assert set(outputs) == {"log_probs", "overlap.next", "lstm.0.c.next", "lstm.0.h.next"}
    for name, array in outputs.items():
        np.testing.assert_array_equal(array, again[name])
    assert len(model.digest) == 64


def test_loading_leaves_the_callers_arithmetic_alone(toy: Path) -> None:
    Model.load(toy)
    assert np.float32(1e-40) * np.float32(1) > 0


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"can't read the model .*no-such.onnx: No such file"):
        Model.load(tmp_path / "no-such.onnx")


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_corrupt_file(toy: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "corrupt.onnx"
    path.write_bytes(toy.read_bytes()[:size])
    with pytest.raises(ModelError, match="no ONNX file that this runtime can load"):
        Model.load(path)


def test_a_foreign_file(toy: Path, tmp_path: Path) -> None:
    graph = onnx.load(toy)
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="was not exported for streamer"):
        Model.load(tmp_path / "foreign.onnx")


def test_weights_in_a_second_file(toy: Path, tmp_path: Path) -> None:
    """As torch.onnx.export writes them; the message names the file, there or not."""
    path = tmp_path / "net.onnx"
    onnx.save_model(onnx.load(toy), path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    for _ in range(2):
        with pytest.raises(ModelError, match=rf"net\.onnx\.data\).*streamer adopt {re.escape(str(path))} makes one"):
            Model.load(path)
        (tmp_path / "net.onnx.data").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["states"].pop(), "input 'lstm.0.h' of the graph is not in the manifest"),
        (lambda d: d["states"][0].update({"in": "nothing"}), "input 'nothing' is not in the graph"),
        (lambda d: d["states"][0].update({"dtype": "float32"}), r"'overlap' is tensor\(int16\) in the graph, float32"),
        (lambda d: d["states"][1].update({"shape": [9]}), r"'lstm.0.c' has the shape \[8\] in the graph, \[9\]"),
        (lambda d: d["states"][1].update({"shape": [1, 8]}), r"'lstm.0.c' has the shape"),
    ],
)
def test_manifest_and_graph_disagree(toy: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = changed(toy, tmp_path / "other.onnx", change)
    with pytest.raises(ModelError, match=message):
        Model.load(path)


def test_a_fixed_batch_is_refused(toy: Path, tmp_path: Path) -> None:
    graph = onnx.load(toy)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, tmp_path / "fixed.onnx")
    with pytest.raises(ModelError, match="'pcm' has the fixed batch 1"):
        Model.load(tmp_path / "fixed.onnx")


def test_a_model_is_named_or_a_path(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = toy_model(tmp_path, name="shipped")
    monkeypatch.setattr(catalogue, "files", lambda name: tmp_path / "package")
    (tmp_path / "package" / "pretrained").mkdir(parents=True)
    shipped.rename(tmp_path / "package" / "pretrained" / "shipped.onnx")
    assert [path.name for path in find_models()] == ["shipped.onnx"]
    assert resolve("shipped") == find_models()[0]
    assert resolve(str(toy)) == toy
    with pytest.raises(ModelError, match=r"no model 'other'.*there are: shipped"):
        resolve("other")


# -- how large a batch pays ------------------------------------------------------------------------------------------


def test_the_best_batch_is_where_gains_end() -> None:
    assert best_batch([1, 2, 4, 8], [1.0, 0.5, 0.3, 0.299]) == 4
    assert best_batch([1, 2, 4], [1.0, 0.99, 0.98]) == 1
    assert best_batch([1], [1.0]) == 1
    assert best_batch([1, 2, 4, 8], [1.0, 1.1, 0.8, 0.6]) == 8


def test_the_measured_batch_is_remembered(toy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "tuning.json"
    model = Model.load(toy)
    first = tune(model, 16, cache)
    assert first.batch in (1, 2, 4, 8, 16)
    assert 1 <= first.pays <= first.batch
    (key,) = json.loads(cache.read_text())
    assert model.digest in key
    assert tune(model, 16, cache) == first
    cache.write_text(json.dumps({key: {"batch": 3, "pays": 2, "wait": 0.002}}))
    assert tune(model, 16, cache) == Tuning(3, 2, 0.002)


def test_a_chunk_waits_for_a_batch_that_saves_much_and_no_longer_than_it_saves() -> None:
    ladder = [1, 2, 4, 8, 16]
    lstm = [4.4e-3, 2.6e-3, 1.9e-3, 1.7e-3, 1.65e-3]
    assert company(ladder, lstm, 16) == (8, pytest.approx(0.015))  # it saves more than anybody may wait
    small = [1e-4, 7e-5, 6e-5, 5.9e-5, 5.8e-5]
    assert company(ladder, small, 16) == (4, pytest.approx(4 * 4e-5))
    wavenet = [5e-3, 4.8e-3, 4.6e-3, 4.6e-3, 4.6e-3]
    assert company(ladder, wavenet, 4) == (1, 0.0)
    assert company([1], [1.0], 1) == (1, 0.0)


@pytest.mark.parametrize("old", [3, {"batch": 3}, {"batch": 2, "pays": 9, "wait": 0.0}, {"batch": 2, "speed": 1}, [1]])
def test_what_another_build_remembered_is_measured_anew(toy: Path, tmp_path: Path, old: Any) -> None:
    cache = tmp_path / "tuning.json"
    model = Model.load(toy)
    tune(model, 2, cache)
    (key,) = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: old}))
    assert tune(model, 2, cache).batch <= 2
    assert json.loads(cache.read_text())[key].keys() == {"batch", "pays", "wait"}


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", '{"a": "b"}', "\x00"])
def test_a_useless_cache_is_replaced(toy: Path, tmp_path: Path, content: str) -> None:
    cache = tmp_path / "tuning.json"
    cache.write_text(content)
    model = Model.load(toy)
    tune(model, 2, cache)
    assert any(model.digest in key for key in json.loads(cache.read_text()))


def test_a_remembered_batch_beyond_the_limit_is_measured_anew(toy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "tuning.json"
    model = Model.load(toy)
    tune(model, 2, cache)
    (key,) = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: {"batch": 4096, "pays": 1, "wait": 0.0}}))
    assert tune(model, 2, cache).batch <= 2
