"""Group commit: what one request of a group does never touches the others, in memory and on the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.sensors.columns import ReadingBatch
from streamer.sensors.ingest import Fleet
from streamer.sensors.look import look
from streamer.store import StoreError
from streamer.store.journal import Journal
from tests.poison import among, raising
from tests.sensors.support import HOUR, batch, feed, fleet

Request = Callable[[Fleet], Future[Any]]


def write(*names: str, hour: float = 1.0) -> Request:
    return lambda fleet: fleet.write(ReadingBatch(names, np.full(len(names), hour * HOUR), np.ones(len(names)))).safe


def forget(name: str) -> Request:
    return lambda fleet: fleet.forget(name)


def outcome(future: Future[Any]) -> object:
    error = future.exception(60)
    return future.result() if error is None else type(error).__name__


class Group:
    """Requests that are committed together, over a disk of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.streams: list[str] = []

    def __call__(self, requests: list[Request]) -> list[object]:
        self.count += 1
        path = self.path / f"{self.count}.sqlite"
        journal = Journal(path)
        made = fleet(start=False, capacity=8, journal=journal)
        futures = [request(made) for request in requests]
        made.start()
        results = [outcome(future) for future in futures]
        assert made.drain(60)
        shown = sorted(name for name in made.slots if look(made, name) is not None)
        made.close()
        self.streams = sorted(saved.name for saved in journal.streams())
        assert self.streams == shown
        journal.close()
        return results


GOOD = [write("a"), write("b", "c"), write("a", hour=2.0)]


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(write("x" * 900_000), id="a long name"),
        pytest.param(write("\ud800"), id="a lone surrogate"),
        pytest.param(write(""), id="no name"),
        pytest.param(write("n\0n"), id="a control character"),
        pytest.param(write(7), id="a number for a name"),  # type: ignore[arg-type]
        pytest.param(write([1]), id="a list for a name"),  # type: ignore[arg-type]
        pytest.param(forget("nobody"), id="forget what is not there"),
    ],
)
def test_a_poisoned_request_leaves_the_others_of_its_group_alone(tmp_path: Path, poison: Request) -> None:
    run = Group(tmp_path)
    for alone, beside in among([*GOOD[:2], forget("b")], poison, run):
        assert beside == alone


def test_a_name_that_is_none_is_refused_with_the_first_example_and_the_rest_of_its_batch_is_taken() -> None:
    made = fleet(capacity=2)
    receipt = made.write(batch([(name, 1.0, 1.0) for name in ("a", "\ud800", "b", "x" * 2000, "c")])).safe.result(60)
    made.close()
    assert receipt.taken == 2
    assert [(r.reason, r.count, r.example) for r in receipt.refusals] == [("capacity", 1, "c"), ("name", 2, "\ud800")]
    assert "'\\ud800'" in receipt.refusals[1].text(2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.booleans()), min_size=1, max_size=12))
def test_sensors_that_come_and_go_in_one_group_are_as_they_were_said_to_be(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, bool]]
) -> None:
    """``DELETE x`` beside a reading of ``x``, in any order."""
    run = Group(tmp_path_factory.mktemp("group"))
    known: set[str] = set()
    want: list[object] = []
    for name, reading in said:
        want.append(True if reading else name in known)
        known = known | {name} if reading else known - {name}
    got = run([write(name, hour=float(at)) if reading else forget(name) for at, (name, reading) in enumerate(said)])
    assert [result if isinstance(result, bool) else result.taken == 1 for result in got] == want  # type: ignore[attr-defined]
    assert run.streams == sorted(known)


def test_a_disk_that_fails_for_one_request_fails_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(self: Journal, changes: list[tuple[int, str | None]], records: list[Any]) -> bool:
        return any(name == "bad" for _, name in changes)

    monkeypatch.setattr(Journal, "append", raising(Journal.append, bad, StoreError("no")))
    run = Group(tmp_path)
    for alone, beside in among(GOOD, write("bad"), run):
        assert beside == alone
        assert run.streams == ["a", "b", "c"]


def test_memory_is_as_it_was_where_the_disk_failed_behind_an_open_and_a_forget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "sensors.sqlite")
    made = fleet(capacity=3, journal=journal)
    feed(made, [("old", 0, 1.0)])
    before = dict(made.slots), made.ids.tolist(), list(made.names)
    with monkeypatch.context() as patch:
        held = hold_writer(made)
        patch.setattr(journal, "append", raising(journal.append, lambda *given: True, StoreError("no space left")))
        futures = [write("new")(made), forget("new")(made), forget("old")(made), write("old", hour=2.0)(made)]
        held.set()
        assert [outcome(future) for future in futures] == ["StoreError", False, "StoreError", "StoreError"]
    assert (dict(made.slots), made.ids.tolist(), list(made.names)) == before
    assert len(feed(made, [("old", 1, 1.0), ("new", 1, 1.0), ("other", 1, 1.0)])) == 3
    assert made.waiting == 0
    made.close()
    assert sorted(saved.name for saved in journal.streams()) == ["new", "old", "other"]
    journal.close()


def hold_writer(made: Fleet) -> threading.Event:
    """The writer waits until the event is set, so that what is written meanwhile is one group."""
    go, inside = threading.Event(), threading.Event()
    append = made.journal.append  # type: ignore[union-attr]

    def waiting(changes: Any, records: Any) -> None:
        inside.set()
        assert go.wait(60)
        append(changes, records)

    made.journal.append = waiting  # type: ignore[union-attr,method-assign]
    made.write(batch([("old", 0.5, 1.0)]))
    assert inside.wait(60)
    made.journal.append = append  # type: ignore[union-attr,method-assign]
    return go


def test_an_id_is_never_used_again_although_its_sensor_came_and_went_in_one_group(tmp_path: Path) -> None:
    for _ in range(2):
        journal = Journal(tmp_path / "sensors.sqlite")
        made = fleet(start=False, capacity=8, journal=journal)
        first = made.directory.next_id
        futures = [write("x")(made), forget("x")(made)]
        made.start()
        assert [outcome(future) for future in futures][1] is True
        made.close()
        journal.close()
        again = Journal(tmp_path / "sensors.sqlite")
        assert again.next_id == first + 1
        again.close()


def test_columns_that_do_not_fit_together_are_refused_at_once() -> None:
    made = fleet()
    for bad in (ReadingBatch(["a"], np.array(["x"]), np.ones(1)), ReadingBatch(["a", "q"], np.ones(1), np.ones(1))):
        with pytest.raises(ValueError, match="as many"):
            made.write(bad)
    assert len(feed(made, [("a", 1, 1.0)])) == 1
    made.close()


def test_a_fleet_that_is_closed_answers_a_forget() -> None:
    made = fleet()
    made.close()
    with pytest.raises(RuntimeError, match="going down"):
        made.forget("a")
