"""Streams of rows: the same fleet, with several values a reading and several targets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from streamer.metrics import Metrics
from streamer.sensors.columns import Forecasts, ReadingBatch
from streamer.sensors.ingest import Fleet
from streamer.sensors.look import look_all, to_dict
from streamer.sensors.open import open_fleet
from streamer.sensors.prometheus import SensorCollector
from streamer.sensors.saver import Saver
from streamer.sources.readings import Columns, Readings
from streamer.store.journal import Journal
from tests.plants import GROWTH, toy_plant

HOUR = 3600.0
VARIABLES = ("inflow", "outflow", "level")
#: (plant, hour, inflow, outflow, level)
Row = tuple[str, float, float | None, float | None, float | None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_plant(tmp_path_factory.mktemp("plant"))


def plants(model: Path, journal: Journal | None = None, start: bool = True, capacity: int = 4) -> Fleet:
    metrics = Metrics(CollectorRegistry())
    made = open_fleet(model, metrics, capacity=capacity, lanes=2, step=HOUR, gap=5, journal=journal)
    if start:
        made.start()
    return made


def batch(rows: list[Row]) -> ReadingBatch:
    values = np.array([[np.nan if v is None else v for v in row[2:]] for row in rows], np.float64)
    return ReadingBatch([row[0] for row in rows], np.array([row[1] * HOUR for row in rows]), values.reshape(-1, 3))


def feed(fleet: Fleet, rows: list[Row]) -> Forecasts:
    forecasts = fleet.write(batch(rows), answer=True).forecasts
    assert forecasts is not None
    return forecasts.result(60)


def lives(hours: int, seed: int = 0) -> list[Row]:
    """Three plants, some rows left out, some values missing."""
    rng = np.random.default_rng(seed)
    found: list[Row] = []
    for hour in range(hours):
        for plant in ("north", "south", "west"):
            if rng.random() < 0.9:
                values = [None if rng.random() < 0.1 else float(rng.normal()) for _ in VARIABLES]
                found.append((plant, float(hour), values[0], values[1], values[2]))
    return found


def expected(rows: list[Row]) -> dict[int, np.ndarray]:
    """Of each row: the medians [K, H] of (level, outflow), by the toy's own words."""
    last: dict[str, list[float]] = {}
    seen: dict[str, int] = {}
    when: dict[str, float] = {}
    found = {}
    for at, (plant, hour, *values) in enumerate(rows):
        now = last.setdefault(plant, [0.0] * 3)
        seen[plant] = seen.get(plant, 0) + int(hour - when.get(plant, hour - 1))  # masked rows count, too
        when[plant] = hour
        for variable, value in enumerate(values):
            if value is not None:
                now[variable] = value
        growth = GROWTH * seen[plant] * np.arange(1, 5)
        found[at] = np.array([now[2] + growth, now[1] + growth])
    return found


def medians(forecasts: Forecasts) -> np.ndarray:
    return forecasts.quantiles[..., 1]


def test_every_row_is_answered_with_every_target(model: Path) -> None:
    made = plants(model)
    rows = lives(40)
    forecasts = feed(made, rows)
    made.close()
    assert list(forecasts.targets) == ["level", "outflow"]
    assert forecasts.quantiles.shape == (len(rows), 2, 4, 3)
    assert np.allclose(medians(forecasts), np.array(list(expected(rows).values())), atol=1e-4)
    want = np.array([[np.nan if v is None else v for v in (row[4], row[3])] for row in rows])
    assert np.array_equal(forecasts.values, want, equal_nan=True)
    said = forecasts.to_dict(len(rows) - 1)
    assert json.loads(json.dumps(said)) == said
    assert set(said["targets"]) == {"level", "outflow"}


def test_a_plant_does_not_know_of_its_company(model: Path) -> None:
    rows = lives(30, seed=1)
    together = plants(model)
    company = feed(together, rows)
    together.close()
    for plant in ("north", "south", "west"):
        own = [row for row in rows if row[0] == plant]
        alone = plants(model, capacity=1)
        parts = [feed(alone, own[first : first + 5]) for first in range(0, len(own), 5)]
        alone.close()
        mine = np.array([name == plant for name in company.names])
        assert np.array_equal(np.concatenate([medians(part) for part in parts]), medians(company)[mine])


def test_a_plant_scores_each_target_and_says_all_of_it(model: Path) -> None:
    made = plants(model)
    rows: list[Row] = [("north", float(hour), 1.0, 2.0, float(hour % 2)) for hour in range(30)]
    feed(made, rows)
    level, outflow = look_all(made, "north")
    assert (level.target, outflow.target, level.readings) == ("level", "outflow", 30)
    assert (level.value, outflow.value) == (1.0, 2.0)
    assert level.life["1"].mae is not None
    assert outflow.life["1"].mae is not None
    assert level.life["1"].mae > outflow.life["1"].mae > 0
    shown = to_dict([level, outflow])
    assert (shown["stream"], set(shown["targets"])) == ("north", {"level", "outflow"})
    assert len(shown["targets"]["level"]["quantiles"]["0.5"]) == 4
    made.close()


def test_a_killed_fleet_of_plants_goes_on_as_if_nothing_had_happened(model: Path, tmp_path: Path) -> None:
    rows = lives(40, seed=2)
    got: list[np.ndarray] = []
    for first in range(0, len(rows), 17):
        journal = Journal(tmp_path / "plants.sqlite", VARIABLES)
        made = plants(model, journal, start=False)
        saver = Saver(made, journal, Metrics(CollectorRegistry()), 300.0)
        saver.restore()
        made.start()
        part = rows[first : first + 17]
        got.append(medians(feed(made, part[:9])))
        if first % 2:
            saver.save(whole=True)
        got.append(medians(feed(made, part[9:])))
        made.close()
        journal.close()
    assert np.allclose(np.concatenate(got), np.array(list(expected(rows).values())), atol=1e-4)


def test_a_journal_of_other_variables_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "plants.sqlite"
    first = Journal(path, VARIABLES)
    first.append([(1, "north")], [])
    first.close()
    same = Journal(path, VARIABLES)
    assert [saved.name for saved in same.streams()] == ["north"]
    same.close()
    for variables in (("inflow", "outflow"), ()):
        other = Journal(path, variables)
        assert other.set_aside is not None
        assert list(other.streams()) == []
        other.append([(1, "a")], [])
        other.close()
    assert [record.__dict__["error"].partition(", the model takes ")[2] for record in caplog.records] == [
        "inflow, outflow",
        "single sensors",
    ]


def test_rows_of_another_width_are_refused_at_once(model: Path) -> None:
    made = plants(model)
    with pytest.raises(ValueError, match="the model takes"):
        made.write(ReadingBatch(["a"], np.zeros(1), np.zeros(1)))
    with pytest.raises(ValueError, match="the model takes"):
        made.write(ReadingBatch(["a"], np.zeros(1), np.zeros((1, 2))))
    assert len(feed(made, [("a", 0.0, 1.0, 1.0, 1.0)])) == 1
    made.close()


def test_a_slot_is_as_new_for_the_next_plant(model: Path) -> None:
    made = plants(model, capacity=1)
    rows = [row for row in lives(20) if row[0] == "north"]
    first = feed(made, rows)
    assert made.forget("north").result(60)
    assert made.drain(60)
    again = feed(made, [("south", *row[1:]) for row in rows])
    made.close()
    assert np.array_equal(first.quantiles, again.quantiles)


def test_the_metrics_page_has_a_stream_for_each_target(model: Path) -> None:
    made = plants(model)
    feed(made, [(plant, float(hour), 1.0, 2.0, 3.0) for hour in range(5) for plant in ("north", "south")])
    registry = CollectorRegistry()
    each = 2 * (2 * 3 + 3 + 6)
    registry.register(SensorCollector([made], ("*",), each, 1))
    value = registry.get_sample_value
    assert value("streamer_forecast_reading", {"stream": "north.outflow"}) == 2.0
    assert value("streamer_forecast_reading", {"stream": "south.outflow"}) is None
    assert value("streamer_sensors_left_out") == 1
    assert value("streamer_forecast", {"stream": "north.level", "ahead": "1", "level": "0.5"}) == pytest.approx(3.05)
    made.close()


def test_lines_of_a_table_are_rows_with_the_stream_apart() -> None:
    csv = "ts,plant,inflow,outflow,level,note\n10,n,1,2,,x\n20,n,1,nan,3,y\n"
    source = Readings("body", Columns(id="plant", values=VARIABLES), print, csv.encode())
    assert source.names() == ("ts", "plant", "inflow", "outflow", "level", "note")
    made = ReadingBatch.of_rows(list(source.rows()), VARIABLES, "other")
    assert (made.names, made.times.tolist()) == (["n", "n"], [10.0, 20.0])
    assert np.array_equal(made.values, [[1, 2, np.nan], [1, np.nan, 3]], equal_nan=True)
    lines = '{"ts":1,"inflow":1,"level":1e40}\n{"ts":2,"id":"s","outflow":null}\n{"ts":3}\n'
    source = Readings("body", Columns(values=VARIABLES), lambda text: None, lines.encode())
    assert source.names() == ("ts", "inflow", "level")
    made = ReadingBatch.of_rows(list(source.rows()), VARIABLES, "other")
    assert (made.names, source.bad) == (["other", "s"], 1)
    assert np.array_equal(made.values, [[1, np.nan, np.nan], [np.nan] * 3], equal_nan=True)
