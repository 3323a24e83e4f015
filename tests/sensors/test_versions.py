"""A new version of a forecaster: its sensors go over where the state's layout is the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry

from streamer.contract.manifest import KEY
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model, ModelError
from streamer.metrics import Metrics
from streamer.sensors.ingest import Fleet
from streamer.sensors.open import load_forecaster, open_fleet
from streamer.sensors.saver import Saver
from streamer.sensors.versions import renew
from streamer.store.journal import Journal
from tests.sensors.support import HOUR, feed, lives

NAME = "forecast-online"


def version(path: Path, *, bent: bool = False, name: str = NAME, state: str = "") -> Path:
    """Another file of the same model; ``bent``: what it says of a reading is not what the shipped one says. ``state``:
    what its first one is called."""
    model = onnx.load(str(resolve(NAME)))
    (text,) = (prop for prop in model.metadata_props if prop.key == KEY)
    manifest = json.loads(text.value) | {"version": "another", "name": name}
    if state:
        before, manifest["states"][0]["in"] = manifest["states"][0]["in"], state
        for node in model.graph.node:
            if before in node.input:
                node.input[list(node.input).index(before)] = state
        (given,) = (given for given in model.graph.input if given.name == before)
        given.name = state
    if bent:
        for name in (each for other in model.graph.node for each in (other.input, other.output)):
            if "quantiles" in name:
                name[list(name).index("quantiles")] = "quantiles.straight"
        one = onnx.helper.make_tensor("bend", onnx.TensorProto.DOUBLE, [], [1.0])
        model.graph.initializer.append(one)
        model.graph.node.append(onnx.helper.make_node("Add", ["quantiles.straight", "bend"], ["quantiles"]))
    text.value = json.dumps(manifest)
    onnx.save(model, str(path))
    return path


def made(path: Path, journal: Journal | None = None) -> Fleet:
    return open_fleet(
        path, Metrics(CollectorRegistry()), capacity=3, step=HOUR, gap=5, lanes=2, journal=journal, limit=8
    )


def test_sensors_go_over_where_they_are(tmp_path: Path) -> None:
    given = lives(3, 80)
    half = len(given) // 2
    whole = made(resolve(NAME))
    over = made(resolve(NAME))
    bent = version(tmp_path / "bent.onnx", bent=True)
    for each in (whole, over):
        each.start()
        feed(each, given[:half])
    renew(over, *load_forecaster(bent)[:2])
    expected, found = feed(whole, given[half:]), feed(over, given[half:])
    assert over.model.manifest.version == "another"
    np.testing.assert_allclose(found.quantiles, expected.quantiles + 1.0, atol=1e-4)
    np.testing.assert_array_equal(found.anomalies, expected.anomalies)
    for fleet in (whole, over):
        assert fleet.close(10)


def test_sensors_go_over_at_a_start(tmp_path: Path) -> None:
    """As from the version before, with the readings since it was saved."""
    given, served = lives(3, 80), tmp_path / "served.onnx"
    half, metrics = len(given) // 2, Metrics(CollectorRegistry())
    whole = made(resolve(NAME))
    whole.start()
    feed(whole, given[:half])
    expected = feed(whole, given[half:])
    shutil.copy(resolve(NAME), served)
    for part in (given[:half], given[half:]):
        journal = Journal(tmp_path / "sensors.sqlite")
        fleet = made(served, journal)
        saver = Saver(fleet, journal, metrics, 0.0)
        saver.restore()
        fleet.start()
        found = feed(fleet, part)
        saver.save(whole=True)
        assert fleet.close(10)
        journal.close()
        version(served)
    np.testing.assert_array_equal(found.quantiles, expected.quantiles)
    assert metrics.lost_states._value.get() == 0
    assert whole.close(10)


def test_sensors_of_another_model_begin_again(tmp_path: Path) -> None:
    metrics = Metrics(CollectorRegistry())
    for path in (resolve(NAME), version(tmp_path / "other.onnx", name="another")):
        journal = Journal(tmp_path / "sensors.sqlite")
        fleet = made(path, journal)
        saver = Saver(fleet, journal, metrics, 0.0)
        saver.restore()
        fleet.start()
        feed(fleet, [("s0", 0.0, 1.0)])
        saver.save(whole=True)
        assert fleet.close(10)
        journal.close()
    assert metrics.lost_states._value.get() == 1


def test_a_version_of_another_layout_is_not_taken(tmp_path: Path) -> None:
    fleet = made(resolve(NAME))
    other = load_forecaster(resolve("forecast-universal"))
    with pytest.raises(ModelError, match="layout"):
        renew(fleet, *other[:2])
    assert fleet.model.digest == Model.load(resolve(NAME)).digest
