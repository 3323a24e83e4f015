"""Sensors take turns: what one brings, however much, costs no other one its answer, and is run whole all the same."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from streamer.sensors.backlog import DEPTH, Backlog, Work
from streamer.sensors.columns import Forecasts
from streamer.sensors.ingest import Fleet
from streamer.sensors.look import look
from streamer.sensors.timeline import GAP, SAVED, Timelines
from streamer.sensors.worker import TAKE, SensorLane
from streamer.sensors.writes import BusyError, PendingWrite
from tests.sensors.support import batch, feed, fleet
from tests.sensors.test_saver import Life

Readings = list[tuple[str, float, float | None]]


def gaps(name: str, count: int, seed: int = 0) -> Readings:
    """Readings that are 2 to 5 steps apart."""
    hours = np.cumsum(np.random.default_rng(seed).integers(2, 6, count)).tolist()
    return [(name, float(hour), float(np.sin(hour))) for hour in hours]


def forecasts(writing: PendingWrite) -> Forecasts:
    assert writing.forecasts is not None
    return writing.forecasts.result(60)


def same(mine: Fleet, theirs: Fleet, name: str) -> None:
    found, expected = look(mine, name), look(theirs, name)
    assert found is not None
    assert expected is not None
    assert (found.readings, found.counts, found.value) == (expected.readings, expected.counts, expected.value)
    assert found.life["all"].mae == pytest.approx(expected.life["all"].mae, rel=1e-4)
    mine_slot, their_slot = mine.slots[name], theirs.slots[name]
    parts, others = mine.table.read(mine_slot), theirs.table.read(their_slot)
    assert parts.keys() == others.keys()
    for part, arrays in parts.items():
        for key, array in arrays.items():
            np.testing.assert_allclose(array, others[part][key], rtol=1e-3, atol=1e-3, err_msg=f"{part} {key}")


def work(slots: list[int], seq: int = 1) -> Work:
    count = len(slots)
    values, times = np.arange(count, dtype=np.float64), np.arange(count, dtype=np.float64)
    return Work(np.array(slots, np.intp), np.zeros(count, np.int64), times, values, np.zeros(count, np.bool_), seq)


def test_a_piece_has_a_turn_for_every_stream_and_order_stays() -> None:
    backlog, rng = Backlog(5), np.random.default_rng(0)
    ran: list[tuple[int, int, int]] = []
    for number in range(40):
        slots = [0] * 60 if number % 7 == 0 else rng.integers(0, 5, 6).tolist()
        backlog.add(work(slots, number))
        piece = backlog.piece()
        assert piece is not None
        _, counts = np.unique(piece.slots, return_counts=True)
        assert counts.max() <= DEPTH
        few = rng.random(len(piece.slots)) < 0.5
        few &= np.array([few[piece.slots == slot][: at + 1].all() for slot, at in _places(piece.slots)])
        ran += zip(piece.slots[few].tolist(), piece.seq[few].tolist(), piece.own[few].tolist(), strict=True)
        backlog.keep(piece.take(~few))
        backlog.settle(piece.whose[few])
    while (piece := backlog.piece()) is not None:
        ran += zip(piece.slots.tolist(), piece.seq.tolist(), piece.own.tolist(), strict=True)
        backlog.settle(piece.whose)
    assert not backlog
    for slot in range(5):
        mine = [(seq, own) for other, seq, own in ran if other == slot]
        assert mine == sorted(mine)
    assert len(ran) == len(set(ran)) == 6 * 60 + 34 * 6


def _places(slots: np.ndarray) -> list[tuple[int, int]]:
    return [(slot, int((slots[:at] == slot).sum())) for at, slot in enumerate(slots.tolist())]


def test_works_without_readings_end_with_the_next_piece() -> None:
    backlog = Backlog(1)
    backlog.add(work([]))
    assert len(backlog.settle(np.zeros(0, np.int64))) == 1
    assert not backlog


def test_a_sensor_is_answered_while_another_one_has_a_long_queue() -> None:
    sensors = fleet(lanes=1)
    with sensors.lanes[0].lock:
        long = sensors.write(batch(gaps("long", 2000)), answer=True)
        long.safe.result(60)
        short = sensors.write(batch([("short", 0.0, 1.0)]), answer=True)
        short.safe.result(60)
    assert list(forecasts(short).names) == ["short"]
    assert long.forecasts is not None
    assert not long.forecasts.done()
    assert sensors.waits() > 0
    sensors.close()


def test_taking_turns_changes_no_state_and_no_score() -> None:
    given = gaps("a", 50), gaps("b", 30, 1), gaps("c", 3, 2)
    alone = fleet(lanes=1)
    for each in given:
        feed(alone, each)
    sensors = fleet(lanes=1)
    with sensors.lanes[0].lock:
        writings = [sensors.write(batch(each), answer=True) for each in given]
        for writing in writings:
            writing.safe.result(60)
    assert [len(forecasts(writing)) for writing in writings] == [50, 30, 3]
    for name in ("a", "b", "c"):
        same(sensors, alone, name)
    sensors.close()
    alone.close()


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_saved_within_a_record_goes_on_where_it_was(tmp_path: Path, seed: int) -> None:
    given = gaps("a", 60, seed) + gaps("b", 5, seed + 1)
    expected = fleet(capacity=8, lanes=1)
    feed(expected, given)
    life = Life(tmp_path / "sensors.sqlite", lanes=1)
    life.fleet.write(batch(given)).safe.result(60)
    saves = 0
    while life.fleet.waiting:
        saves += life.saver.save(whole=True)
        life.crash()
        life = Life(tmp_path / "sensors.sqlite", lanes=1)
        for _ in range(3):  # some pieces, each time
            with life.fleet.lanes[0].lock:
                pass
    assert life.fleet.drain(60)
    assert saves > 2
    assert life.saver.save(whole=True) <= 2
    assert life.records() == 0
    for name in ("a", "b"):
        same(life.fleet, expected, name)
    life.crash()
    expected.close()


def test_a_drain_that_is_over_stops_between_two_pieces(tmp_path: Path) -> None:
    life = Life(tmp_path / "sensors.sqlite", lanes=1)
    life.fleet.write(batch(gaps("a", 3000))).safe.result(60)
    assert not life.fleet.drain(0.0)
    assert life.fleet.close(60)
    left = life.fleet.waiting
    assert left > 0
    life.saver.save(whole=True)
    life.journal.close()
    again = Life(tmp_path / "sensors.sqlite", lanes=1)
    sensor = again.fleet.slots["a"]
    assert int(again.fleet.written[sensor]) == 1
    assert again.fleet.waiting <= left
    again.crash()


def test_what_waits_of_a_forgotten_sensor_is_not_run() -> None:
    sensors = fleet(lanes=1, capacity=1)
    with sensors.lanes[0].lock:
        long = sensors.write(batch(gaps("long", 3000)), answer=True)
        long.safe.result(60)
        assert sensors.forget("long").result(60)
    assert len(forecasts(long)) < 3000
    assert sensors.drain(60)
    assert sensors.waiting == 0
    assert len(feed(sensors, [("next", 0.0, 1.0)])) == 1
    sensors.close()


def test_gaps_are_filled_as_far_as_readings_have_earned_it() -> None:
    limit, earned = 10, 2
    cadence = Timelines(1, 1.0, limit, earned)
    slot, time = np.zeros(1, np.intp), 0.0
    kinds = []
    for _ in range(100):
        time += limit + 1
        placed = cadence.place(slot, np.array([time]))
        kinds.append((int(placed.masked[0]), int(placed.breaks[0]) == GAP))
    assert kinds[1 : SAVED + 1] == [(limit, False)] * SAVED
    assert kinds[-1] == (earned, True)
    assert cadence.counts["masked"][0] <= SAVED * limit + 100 * earned
    again = Timelines(1, 1.0, limit, earned)
    again.write(0, cadence.read(0))
    assert again.place(slot, np.array([time + 11])).masked.tolist() == [earned]


def test_one_sensor_leaves_room_for_others() -> None:
    sensors = fleet(start=False, waiting=80)
    sensors.start()
    with sensors.lanes[0].lock, sensors.lanes[1].lock:
        sensors.write(batch([("long", float(hour), 1.0) for hour in range(100)])).safe.result(60)
        assert sensors.write(batch([("b", 0.0, 1.0)] * 70)).safe.result(60).taken == 70
        with pytest.raises(BusyError, match="max_waiting_readings"):
            sensors.write(batch([("c", 0.0, 1.0)] * 70))
        receipt = sensors.write(batch([("long", 200.0, 1.0), ("c", 1.0, 1.0)])).safe.result(60)
        assert (receipt.taken, receipt.later) == (1, True)
        (refusal,) = receipt.refusals
        assert "send them again later" in refusal.text(3)
    assert sensors.drain(60)
    assert sensors.write(batch([("long", 200.0, 1.0)])).safe.result(60).taken == 1
    sensors.close()


def test_the_rate_is_of_readings_and_not_of_the_steps_that_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused readings leave gaps, so that later ones cost several steps: steps a second promised too short a wait."""
    measured: list[int] = []
    monkeypatch.setattr(SensorLane, "_measure", lambda lane, readings: measured.append(readings))
    sensors = fleet(lanes=1, capacity=600)
    names = [f"s{i}" for i in range(2 * sensors.table.limit)]
    for hour in (0.0, 1.0, 5.0, 9.0):
        feed(sensors, [(name, hour, 1.0) for name in names])
    assert sensors.drain(60)
    sensors.close()
    assert 0 < sum(measured) <= 4 * len(names)


def test_a_lane_that_starts_with_waiting_readings_measures_from_its_start(tmp_path: Path) -> None:
    """Else the time since the machine's start would count, and all new readings would be refused for half a minute."""
    life = Life(tmp_path / "sensors.sqlite", lanes=1, capacity=600)
    names = [f"s{i}" for i in range(2 * life.fleet.table.limit)]
    feed(life.fleet, [(name, hour, 1.0) for hour in (0.0, 1.0) for name in names])
    life.crash()
    begin = monotonic()
    life = Life(tmp_path / "sensors.sqlite", lanes=1, capacity=600)
    assert life.fleet.drain(60)
    (lane,) = life.fleet.lanes
    assert lane.rate > 0, "it ran the readings of the last life"
    assert lane._seconds <= monotonic() - begin
    life.crash()


def test_readings_that_would_wait_too_long_are_refused() -> None:
    sensors = fleet(seconds=5.0, lanes=1)
    (lane,) = sensors.lanes
    with lane.lock:
        sensors.write(batch([("a", float(hour), 1.0) for hour in range(DEPTH)] * 3)).safe.result(60)
        assert sensors.behind() == 0  # nothing is measured
        lane.rate = DEPTH / 4
        assert sensors.behind() == 4
        sensors.write(batch([("b", float(hour), 1.0) for hour in range(DEPTH)])).safe.result(60)
        with pytest.raises(BusyError, match="max_waiting_seconds") as refused:
            sensors.write(batch([("b", 20.0, 1.0)]))
        assert refused.value.retry_after == 3
    assert TAKE > 4 * DEPTH
    assert sensors.drain(60)
    sensors.close()
