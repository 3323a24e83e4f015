"""Sleep law and loss law of sensors: whatever is saved when, a killed fleet goes on as one that was never killed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from streamer.engine.model import ModelError
from streamer.metrics import Metrics
from streamer.sensors.ingest import Fleet
from streamer.sensors.look import look
from streamer.sensors.saver import Saver, from_bytes, to_bytes
from streamer.store import StoreError
from streamer.store.journal import Journal, Record, Saved
from streamer.store.salvage import checksum
from tests.poison import among, raising
from tests.sensors.support import batch, feed, fleet, lives


class Life:
    """One run of a daemon, up to its crash."""

    def __init__(self, path: Path, **options: int) -> None:
        self.journal = Journal(path)
        self.now = 0.0
        self.fleet: Fleet = fleet(start=False, journal=self.journal, **{"capacity": 8, **options})
        self.metrics = Metrics(CollectorRegistry())
        self.saver = Saver(self.fleet, self.journal, self.metrics, 300.0, lambda: self.now)
        self.restored = self.saver.restore()
        self.fleet.start()

    def crash(self) -> None:
        self.fleet.close()
        self.journal.close()

    def records(self) -> int:
        return sum(1 for _ in self.journal.records())


def test_a_killed_fleet_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    given = lives(6, 60)
    whole = fleet(capacity=8)
    expected = feed(whole, given)
    whole.close()
    told = []
    rng = np.random.default_rng(1)
    at = 0
    while at < len(given):
        life = Life(tmp_path / "sensors.sqlite", lanes=int(rng.integers(1, 4)))
        for _ in range(rng.integers(1, 5)):
            last = at + int(rng.integers(1, 25))
            told.append(feed(life.fleet, given[at:last]))
            at = last
            life.now += rng.choice([0, 200, 400])
            life.saver.save(whole=rng.random() < 0.2)
        life.crash()
    for name in ("times", "values", "steps", "anomalies", "quantiles"):
        found = np.concatenate([getattr(part, name) for part in told])
        assert np.allclose(found, getattr(expected, name), rtol=1e-4, atol=1e-4, equal_nan=True), name
    last = Life(tmp_path / "sensors.sqlite")
    assert last.restored == 6
    assert last.fleet.drain(60)
    for stream in range(6):
        mine, theirs = look(last.fleet, f"s{stream}"), look(whole, f"s{stream}")
        assert mine is not None
        assert theirs is not None
        assert (mine.readings, mine.missing, mine.counts) == (theirs.readings, theirs.missing, theirs.counts)
        assert mine.life["all"].mae == pytest.approx(theirs.life["all"].mae, rel=1e-4)
    last.crash()


def test_what_is_acknowledged_is_there_although_it_was_never_run(tmp_path: Path) -> None:
    life = Life(tmp_path / "sensors.sqlite")
    with life.fleet.lanes[0].lock, life.fleet.lanes[1].lock:  # nothing is run any more
        receipt = life.fleet.write(batch([("a", hour, float(hour)) for hour in range(5)])).safe.result(60)
        assert receipt.taken == 5
        for lane in life.fleet.lanes:
            lane.close()
    life.crash()
    again = Life(tmp_path / "sensors.sqlite")
    assert again.fleet.drain(60)
    sensor = look(again.fleet, "a")
    assert sensor is not None
    assert (sensor.readings, sensor.value) == (5, 4.0)
    again.crash()


def test_readings_that_are_sent_again_count_once(tmp_path: Path) -> None:
    given = [("a", hour, float(hour)) for hour in range(5)]
    for _ in range(3):
        life = Life(tmp_path / "sensors.sqlite")
        feed(life.fleet, given)
        life.crash()
    last = Life(tmp_path / "sensors.sqlite")
    last.fleet.drain(60)
    sensor = look(last.fleet, "a")
    assert sensor is not None
    assert sensor.readings == 5
    last.crash()


def test_the_journal_is_as_long_as_what_is_not_saved(tmp_path: Path) -> None:
    life = Life(tmp_path / "sensors.sqlite")
    for hour in range(4):
        feed(life.fleet, [("a", hour, 1.0), ("b", hour, 1.0)])
    assert life.records() == 4
    assert life.saver.save() == 0  # not yet
    life.now = 301
    assert life.saver.save() == 2
    assert life.records() == 0
    feed(life.fleet, [("a", 5, 1.0)])
    life.now = 400
    feed(life.fleet, [("b", 5, 1.0)])
    assert life.saver.save() == 0
    assert life.saver.save(whole=True) == 2
    assert life.records() == 0
    assert life.saver.save(whole=True) == 0
    life.crash()


def test_a_stream_that_is_gone_stays_gone_and_its_number_is_not_used_again(tmp_path: Path) -> None:
    life = Life(tmp_path / "sensors.sqlite")
    feed(life.fleet, [("a", hour, 1.0) for hour in range(3)])
    life.fleet.forget("a").result(60)
    life.crash()
    again = Life(tmp_path / "sensors.sqlite")
    assert again.restored == 0
    feed(again.fleet, [("b", 1, 7.0)])
    assert again.fleet.ids.max() == 2
    again.crash()
    last = Life(tmp_path / "sensors.sqlite")
    last.fleet.drain(60)
    sensor = look(last.fleet, "b")
    assert sensor is not None
    assert sensor.readings == 1
    last.crash()


def test_more_saved_sensors_than_fit_are_no_silent_loss(tmp_path: Path) -> None:
    life = Life(tmp_path / "sensors.sqlite")
    feed(life.fleet, [(name, 1, 1.0) for name in "abc"])
    life.crash()
    journal = Journal(tmp_path / "sensors.sqlite")
    small = fleet(start=False, journal=journal, capacity=2)
    with pytest.raises(ModelError, match="max_sensors"):
        Saver(small, journal, Metrics(CollectorRegistry()), 300.0).restore()
    journal.close()


@pytest.mark.parametrize("spoil", ["model", "data"])
def test_a_state_that_fits_no_more_is_told_of_and_the_stream_begins_anew(
    tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sensors.sqlite"
    life = Life(path)
    feed(life.fleet, [("a", hour, 1.0) for hour in range(30)])
    life.saver.save(whole=True)
    feed(life.fleet, [("a", 30, 1.0)])
    life.crash()
    with sqlite3.connect(path) as db:
        id, seq, data = db.execute("SELECT id, seq, data FROM streams").fetchone()
        model = "another" if spoil == "model" else life.fleet.model.digest
        data = to_bytes(from_bytes(data), "another") if spoil == "model" else b"\0\0\0\0garbage"
        crc = checksum("streams", id, "a", seq, model, data)
        db.execute("UPDATE streams SET model = ?, data = ?, crc = ?", (model, data, crc))
    db.close()
    again = Life(path)
    again.fleet.drain(60)
    sensor = look(again.fleet, "a")
    assert sensor is not None
    assert sensor.readings == 1
    assert "start from zero" in caplog.text
    assert again.metrics.registry.get_sample_value("streamer_lost_states_total") == 1
    again.crash()


def test_a_disk_that_fails_takes_nothing_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path / "sensors.sqlite")
    feed(life.fleet, [("a", 0, 1.0)])
    with monkeypatch.context() as patch:

        def full(*arguments: object) -> None:
            raise StoreError("no space left")

        patch.setattr(life.journal, "append", full)
        with pytest.raises(StoreError, match="no space left"):
            life.fleet.write(batch([("a", 1, 1.0), ("b", 1, 1.0)])).safe.result(60)
        patch.setattr(life.journal, "save", full)
        assert life.saver.save(whole=True) == 0
    assert list(life.fleet.slots) == ["a"]
    assert len(feed(life.fleet, [("a", 1, 1.0), ("b", 1, 1.0)])) == 2
    assert life.saver.save(whole=True) == 2
    life.crash()


@pytest.mark.parametrize("where", ["copy", "write"])
def test_a_sensor_that_can_not_be_saved_keeps_no_other_from_the_disk(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = 0

    def run(names: list[str]) -> list[bool]:
        nonlocal lives
        lives += 1
        life = Life(tmp_path / f"{lives}.sqlite")
        feed(life.fleet, [(name, 1, 1.0) for name in names])
        with monkeypatch.context() as patch:
            if where == "copy":
                bad = life.fleet.slots.get("bad")
                read = raising(life.fleet.table.track.read, lambda slot: slot == bad, MemoryError())
                patch.setattr(life.fleet.table.track, "read", read)
            else:
                error = StoreError("string or blob too big")
                save = raising(life.journal.save, lambda rows, done: any(row.name == "bad" for row in rows), error)
                patch.setattr(life.journal, "save", save)
            life.saver.save(whole=True)
        saved = {stream.name for stream in life.journal.streams() if stream.data}
        assert life.saver.save(whole=True) == ("bad" in names)
        life.crash()
        return [name in saved for name in names]

    for alone, beside in among(["a", "b", "c", "d"], "bad", run):
        assert beside == alone == [True] * 4


def test_a_stream_that_can_not_be_restored_keeps_no_other_from_coming_back(tmp_path: Path) -> None:
    lives = 0

    def run(names: list[str]) -> list[int]:
        nonlocal lives
        lives += 1
        life = Life(tmp_path / f"{lives}.sqlite")
        feed(life.fleet, [(name, hour, 1.0) for hour in range(3) for name in names])
        life.saver.save(whole=True)
        life.crash()
        with sqlite3.connect(tmp_path / f"{lives}.sqlite") as db:
            db.execute("UPDATE streams SET data = x'00' WHERE name = 'bad'")
        db.close()
        again = Life(tmp_path / f"{lives}.sqlite")
        assert again.fleet.drain(60)
        found = [int(again.fleet.table.latest.readings[again.fleet.slots[name]]) for name in names]
        again.crash()
        return found

    for alone, beside in among(["a", "b"], "bad", run):
        assert beside == alone == [3, 3]


def test_a_damaged_record_is_a_gap_and_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "sensors.sqlite"
    life = Life(path)
    for hour in range(4):
        feed(life.fleet, [("a", hour, 1.0)])
    life.crash()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE journal SET data = x'0000000000' WHERE seq = 3")
    db.close()
    again = Life(path)
    again.fleet.drain(60)
    sensor = look(again.fleet, "a")
    assert sensor is not None
    assert (sensor.readings, sensor.counts["masked"]) == (3, 1)
    assert "1 rows of it are lost" in caplog.text
    again.crash()


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "sensors.sqlite")
    record = Record(7, np.array([1, 2]), np.array([0.1, 1e18]), np.array([np.nan, -0.0]), np.array([True, False]))
    journal.append([(1, "a"), (2, "b")], [record])
    (found,) = journal.records()
    assert found.seq == 7
    for mine, theirs in zip(found[1:], record[1:], strict=True):
        assert np.array_equal(mine, theirs, equal_nan=True)
    journal.save([Saved(1, "a", 7, "m", b"state")], 6)
    assert [tuple(saved) for saved in journal.streams()] == [(1, "a", 7, "m", b"state"), (2, "b", 0, "", b"")]
    journal.close()
    again = Journal(tmp_path / "sensors.sqlite")
    assert (again.next_id, again.next_seq) == (3, 8)
    again.close()


def test_an_older_copy_of_a_state_never_replaces_a_newer_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "sensors.sqlite")
    journal.append([(1, "a")], [])
    journal.save([Saved(1, "a", 3, "m", b"newer")], 3)
    journal.save([Saved(1, "a", 1, "m", b"older")], 1)
    assert [saved.data for saved in journal.streams()] == [b"newer"]
    journal.save([Saved(1, "a", 3, "m", b"as new")], 3)  # of the same record: a reading may have failed meanwhile
    assert [(saved.seq, saved.data) for saved in journal.streams()] == [(3, b"as new")]
    journal.close()


@pytest.mark.long
def test_a_save_of_everything_amid_a_round_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(tmp_path / "sensors.sqlite")
    feed(life.fleet, [("a", 0, 1.0)])
    copied, written, save = threading.Event(), threading.Event(), life.journal.save

    def slow(states: Sequence[Saved], done: int) -> None:
        if threading.current_thread() is round:
            copied.set()
            written.wait(2)  # the other one, if it may
        save(states, done)
        if threading.current_thread() is last:
            written.set()

    monkeypatch.setattr(life.journal, "save", slow)
    round = threading.Thread(target=life.saver.save, kwargs={"whole": True})
    last = threading.Thread(target=life.saver.save, kwargs={"whole": True})
    round.start()
    assert copied.wait(60)
    feed(life.fleet, [("a", hour, 1.0) for hour in range(1, 5)])
    last.start()
    round.join(60)
    last.join(60)
    assert life.records() == 0
    assert (life.fleet.saved == life.fleet.written).all()
    life.crash()
    again = Life(tmp_path / "sensors.sqlite")
    assert again.fleet.drain(60)
    sensor = look(again.fleet, "a")
    assert sensor is not None
    assert sensor.readings == 5
    again.crash()
