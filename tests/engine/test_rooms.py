"""The engine's parts, each alone: arena, scheduler, chunker, snapshot."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.contract.manifest import Condition, State
from streamer.engine.arena import Arena, ArenaError
from streamer.engine.batch import rungs
from streamer.engine.scheduler import Place, Scheduler
from streamer.refusals import Overflow
from streamer.streams.chunker import Chunker
from streamer.streams.snapshot import Snapshot, SnapshotError

STATES = [
    State.model_validate({"in": "a", "out": "a2", "dtype": "float32", "shape": (3,)}),
    State.model_validate({"in": "b", "out": "b2", "dtype": "int16", "shape": (2, 2)}),
]


def test_a_slot_starts_with_zeros_whoever_had_it_before() -> None:
    arena = Arena(STATES, 2, 2**20)
    slot = arena.acquire()
    assert slot is not None
    arena.write(slot, {"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.int16)})
    arena.retire(slot)
    assert not arena.current(slot)
    arena.release(slot)
    again = arena.acquire()
    assert again is not None
    assert again.index == slot.index
    assert arena.current(again)
    assert not arena.current(slot)
    assert not any(array.any() for array in arena.read(again).values())


def test_a_retired_slot_is_nobody_s_before_and_after_it_is_released() -> None:
    arena = Arena(STATES, 2, 2**20)
    first, second = arena.acquire(), arena.acquire()
    assert first is not None
    assert second is not None
    assert arena.acquire() is None
    where, whose = np.array([first.index, second.index]), np.array([first.generation, second.generation])
    arena.retire(first)
    arena.retire(first)  # said again it does no harm
    assert arena.current_rows(where, whose).tolist() == [False, True]
    assert arena.acquire() is None  # its chunk is still in flight
    arena.release(first)
    again = arena.acquire()
    assert again is not None
    arena.retire(first)  # a former owner has no say any more
    assert arena.current(again)
    assert arena.current_rows(where, whose).tolist() == [False, True]


def test_conditions_are_gathered_and_kept_when_the_stream_begins_again() -> None:
    given = [
        Condition(name="speaker", dtype="float32", shape=(2,)),
        Condition(name="language", dtype="int64", shape=(1,), limits=(0, 3)),
    ]
    arena = Arena(STATES, 2, 2**20, given)
    slot = arena.acquire()
    assert slot is not None
    arena.set_conditions(slot, {"speaker": np.array([1, 2], np.float32)})
    before = arena.read(slot)
    arena.write(slot, before | {"a": np.ones(3, np.float32)})
    arena.clear(slot)
    assert arena.read(slot)["speaker"].tolist() == [1, 2]
    assert not arena.read(slot)["a"].any()
    feeds = {name: np.zeros((1, *array.shape), array.dtype) for name, array in before.items()}
    arena.gather(np.array([slot.index]), feeds)
    assert feeds["speaker"].tolist() == [[1, 2]]
    for wrong, said in (
        ({"voice": np.zeros(2, np.float32)}, "no condition 'voice'; there is speaker, language"),
        ({"speaker": np.zeros(3, np.float32)}, "condition 'speaker' is float32"),
        ({"speaker": np.array([1, np.nan], np.float32)}, "not finite"),
        ({"language": np.array([4])}, "must be 0 to 3"),
        ({"a": np.zeros(3, np.float32)}, "no condition 'a'"),
    ):
        with pytest.raises(ValueError, match=said):
            arena.set_conditions(slot, wrong | {"speaker": wrong.get("speaker", np.zeros(2, np.float32))})
        assert arena.read(slot)["speaker"].tolist() == [1, 2]
    arena.release(slot)
    again = arena.acquire()
    assert again is not None
    assert not arena.read(again)["speaker"].any()


def test_gather_and_scatter_move_rows_by_slot() -> None:
    arena = Arena(STATES, 4, 2**20)
    slots = np.array([2, 0], np.intp)
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    arena.scatter(slots, {"a2": np.vstack([a, a]), "b2": np.concatenate([b, b])})  # rows beyond the slots are padding
    np.testing.assert_array_equal(arena.read(arena.slot(0))["a"], a[1])
    assert not arena.read(arena.slot(1))["a"].any()
    feeds = {"a": np.zeros((4, 3), np.float32), "b": np.zeros((4, 2, 2), np.int16)}
    arena.gather(slots, feeds)
    np.testing.assert_array_equal(feeds["a"][:2], a)
    np.testing.assert_array_equal(feeds["b"][:2], b)


def test_an_arena_beyond_its_memory_is_refused_with_the_capacity_that_fits() -> None:
    with pytest.raises(ArenaError, match="lower capacity to 5,"):
        Arena(STATES, 6, 100)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"a": np.zeros(3, np.float32)}, "are not the model's"),
        ({"a": np.zeros(4, np.float32), "b": np.zeros((2, 2), np.int16)}, "'a' is"),
        ({"a": np.zeros(3, np.float64), "b": np.zeros((2, 2), np.int16)}, "float64"),
    ],
)
def test_foreign_states_are_not_written(states: dict[str, np.ndarray], message: str) -> None:
    arena = Arena(STATES, 1, 2**20)
    with pytest.raises(ValueError, match=message):
        arena.write(arena.slot(0), states)


def test_rungs_end_at_the_limit() -> None:
    assert rungs(1) == [1]
    assert rungs(8) == [1, 2, 4, 8]
    assert rungs(12) == [1, 2, 4, 8, 12]


# -- scheduler -------------------------------------------------------------------------------------------------------


class Item:
    def __init__(self) -> None:
        self.place, self.since, self.due, self.closing = Place.IDLE, 0.0, 0.0, False
        self.deadline, self.heard = 0.0, True


def test_first_come_first_served_and_nobody_twice() -> None:
    scheduler: Scheduler[Item] = Scheduler(2)
    a, b, c = Item(), Item(), Item()
    for item in (a, b, a, c, b):
        scheduler.ready(item)
    assert scheduler.take() == [a, b]
    scheduler.ready(a)  # running: it must not come again before it is done
    assert scheduler.take() == [c]
    scheduler.done([c], [False])
    scheduler.ready(c)
    assert scheduler.take() == [c]
    scheduler.done([a, b], [False, True])
    assert scheduler.take() == [a, b]


@pytest.mark.parametrize(("ready", "sizes"), [(2, [2]), (3, [2, 1]), (7, [7]), (9, [8, 1]), (13, [13]), (15, [15])])
def test_a_batch_that_would_be_padded_far_up_is_split(ready: int, sizes: list[int]) -> None:
    scheduler: Scheduler[Item] = Scheduler(16, [1, 2, 4, 8, 16])
    for _ in range(ready):
        scheduler.ready(Item())
    assert [len(scheduler.take()) for _ in sizes] == sizes
    assert scheduler.waited() == 0


def test_waiting_lanes_share_what_is_ready() -> None:
    scheduler: Scheduler[Item] = Scheduler(8)
    batches: list[list[Item]] = []
    lanes = [threading.Thread(target=lambda: batches.append(scheduler.take())) for _ in range(2)]
    for lane in lanes:
        lane.start()
    while scheduler._waiting < 2:
        threading.Event().wait(0.001)
    with scheduler._changed:  # both lanes wait until all four are there
        for item in [Item() for _ in range(4)]:
            scheduler._push(item, 0.0)
    for lane in lanes:
        lane.join(20)
    assert [len(batch) for batch in batches] == [2, 2]


def test_closing_a_running_stream_is_told_once() -> None:
    scheduler: Scheduler[Item] = Scheduler(2)
    a, b = Item(), Item()
    scheduler.ready(a)
    scheduler.ready(b)
    assert scheduler.take() == [a, b]
    assert not scheduler.remove(a)
    assert not scheduler.remove(a)
    assert scheduler.done([a, b], [True, False]) == [a]
    scheduler.ready(a)
    assert scheduler.idle()
    scheduler.ready(b)
    assert scheduler.remove(b)
    assert scheduler.idle()


def test_stalled_counts_only_while_there_is_work() -> None:
    scheduler: Scheduler[Item] = Scheduler(1)
    assert scheduler.stalled() == 0
    item = Item()
    scheduler.ready(item)
    assert scheduler.stalled() > 0
    scheduler.take()
    assert scheduler.stalled() > 0
    scheduler.done([item], [False])
    assert scheduler.stalled() == 0


def test_a_closed_scheduler_lets_its_lanes_go() -> None:
    scheduler: Scheduler[Item] = Scheduler(1)
    found: list[list[Item]] = []
    lane = threading.Thread(target=lambda: found.append(scheduler.take()))
    lane.start()
    scheduler.close()
    lane.join(20)
    assert found == [[]]


# -- chunker ---------------------------------------------------------------------------------------------------------


@given(parts=st.lists(st.integers(0, 25), max_size=12), flush=st.integers(0, 3))
def test_chunks_are_the_samples_in_order_then_zeros(parts: list[int], flush: int) -> None:
    chunker = Chunker(8, 4, flush, 10_000, "wait")
    whole = np.arange(1, sum(parts) + 1, dtype=np.int16)
    for part in np.split(whole, np.cumsum(parts)[:-1]) if parts else []:
        assert chunker.push(part) == 0
    chunker.end()
    rows, steps = [], 0
    row = np.full(8, -1, np.int16)
    while (real := chunker.take({"pcm": row})) >= 0:
        rows.append(row.copy())
        steps += real
    assert chunker.done
    assert steps == -(-len(whole) // 4) + flush
    together = np.concatenate(rows) if rows else np.zeros(0, np.int16)
    np.testing.assert_array_equal(together[: len(whole)], whole)
    assert not together[len(whole) :].any()


def test_wait_takes_nothing_when_full() -> None:
    chunker = Chunker(4, 4, 0, 8, "wait")
    chunker.push(np.ones(8, np.int16))
    with pytest.raises(Overflow):
        chunker.push(np.ones(1, np.int16))
    assert chunker.length == 8


def test_gap_drops_the_oldest_down_to_half() -> None:
    chunker = Chunker(4, 4, 0, 16, "gap")
    assert chunker.push(np.arange(16, dtype=np.int16)) == 0
    assert chunker.push(np.arange(16, 20, dtype=np.int16)) == 12
    np.testing.assert_array_equal(chunker.rest(), np.arange(12, 20))
    assert chunker.push(np.arange(100, dtype=np.int16)) == 100
    np.testing.assert_array_equal(chunker.rest(), np.arange(92, 100))


# -- snapshot --------------------------------------------------------------------------------------------------------


def snapshot() -> Snapshot:
    return Snapshot(
        id="x",
        model="toy",
        digest="d",
        sample_rate=8000,
        overflow="gap",
        options={"partials": False},
        received=5,
        consumed=4,
        origin=0,
        seq=2,
        steps_left=-1,
        dropped=0,
        finished=False,
        markers=[("m", 5, 5)],
        events=[{"type": "final", "seq": 2, "text": "ä"}],
        memory=b"\x00memory",
        resampler=b"",
        pending=np.array([1, -2], np.int16),
        states={"h": np.array([1.5], np.float32), "c": np.array([[True]])},
    )


def test_a_snapshot_survives_its_bytes() -> None:
    before = snapshot()
    after = Snapshot.from_bytes(before.to_bytes())
    plain = {k: v for k, v in vars(before).items() if k not in ("pending", "states")}
    assert plain == {k: v for k, v in vars(after).items() if k not in ("pending", "states")}
    np.testing.assert_array_equal(before.pending, after.pending)
    assert after.states.keys() == before.states.keys()
    for name, array in before.states.items():
        np.testing.assert_array_equal(array, after.states[name], strict=True)
    assert after.to_bytes() == before.to_bytes()


@given(at=st.integers(0, 10_000), by=st.integers(1, 255))
def test_a_damaged_snapshot_is_refused(at: int, by: int) -> None:
    data = bytearray(snapshot().to_bytes())
    data[at % len(data)] ^= by
    with pytest.raises(SnapshotError):
        Snapshot.from_bytes(bytes(data))


@given(length=st.integers(0, 10_000))
def test_a_truncated_snapshot_is_refused(length: int) -> None:
    data = snapshot().to_bytes()
    with pytest.raises(SnapshotError):
        Snapshot.from_bytes(data[: length % len(data)])
