"""The service without a wire, in one process: what a request's timeout bounds, and whose slot is free when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.http_errors import error_response
from streamer.serve.kserve.messages import SequenceFlags
from streamer.streams.registry import Registry
from tests.engine.support import running
from tests.serve.kserve.plant import plant, rows, truth
from tests.serve.kserve.test_laws import asked, serving

#: Seconds: over as soon as the event loop turns once, and not before.
AT_ONCE = 1e-6


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """With a single slot."""
    with running(plant(tmp_path), folder=tmp_path, lanes=1, capacity=1) as registry:
        yield registry


async def turns(count: int) -> None:
    """The event loop goes round so often."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_timeout_does_not_end_a_request_whose_rows_are_taken(registry: Registry) -> None:
    async def requests() -> None:
        service, given = serving(registry), rows(1, 6)
        await asked(service, given[:2], SequenceFlags(1, start=True))
        (session,) = registry._table.all()
        session.hold()  # lanes pass it over
        late = asyncio.create_task(asked(service, given[2:4], SequenceFlags(1), timeout=AT_ONCE))
        await turns(20)
        assert session.received == 4
        assert not late.done()
        behind = asyncio.create_task(asked(service, given[4:], SequenceFlags(1)))
        await turns(2)
        session.go_on()
        np.testing.assert_array_equal(np.concatenate([await late, await behind]), truth(given)[2:])

    asyncio.run(requests())


def test_a_timeout_without_a_sequence_does_not_end_it_either(registry: Registry) -> None:
    async def requests() -> None:
        service, given = serving(registry), rows(2, 4)
        np.testing.assert_array_equal(await asked(service, given, timeout=AT_ONCE), truth(given))

    asyncio.run(requests())


def test_a_timeout_before_the_rows_are_taken_says_so_and_that_trying_again_helps(registry: Registry) -> None:
    async def requests() -> None:
        service, given = serving(registry), rows(3, 4)
        await asked(service, given, SequenceFlags(1, start=True))
        with pytest.raises(KServeError, match="nothing of it was taken") as caught:
            await asked(service, given, SequenceFlags(2, start=True), timeout=AT_ONCE)
        assert error_response(caught.value).headers["retry-after"] == "1"

    asyncio.run(requests())


def test_what_fails_behind_rows_that_were_taken_is_not_to_be_sent_again(registry: Registry) -> None:
    async def requests() -> None:
        service, given = serving(registry), rows(4, 4)
        await asked(service, given[:2], SequenceFlags(1, start=True))
        (session,) = registry._table.all()
        session.hold()
        request = asyncio.create_task(asked(service, given[2:], SequenceFlags(1)))
        await turns(2)
        assert session.leave("idle_timeout", "nothing came")
        with pytest.raises(KServeError, match="nothing came") as caught:
            await request
        response = error_response(caught.value)
        assert (response.status_code, "retry-after" in response.headers) == (503, False)

    asyncio.run(requests())


@pytest.fixture
def put_down(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set the lane has not put down the chunk that it ran, whose outputs are delivered."""
    event = threading.Event()
    scheduler = registry.engine("plant")._scheduler
    done = scheduler.done

    def slowly(*given: Any) -> Any:
        assert event.wait(60)
        return done(*given)

    monkeypatch.setattr(scheduler, "done", slowly)
    yield event
    event.set()


@pytest.mark.parametrize("first", [SequenceFlags(1, start=True, end=True), None])
def test_a_slot_that_is_being_given_back_is_waited_for(
    registry: Registry, put_down: threading.Event, first: SequenceFlags | None
) -> None:
    async def requests() -> None:
        service, given = serving(registry), rows(5, 2)
        await asked(service, given, first)
        following = asyncio.create_task(asked(service, given, SequenceFlags(2, start=True, end=True)))
        await turns(20)
        assert not following.done()
        put_down.set()
        np.testing.assert_array_equal(await following, truth(given))

    asyncio.run(requests())


def test_only_so_many_wait_as_slots_are_being_given_back(registry: Registry, put_down: threading.Event) -> None:
    async def requests() -> None:
        service, given = serving(registry), rows(6, 2)
        await asked(service, given, SequenceFlags(1, start=True, end=True))
        following = asyncio.create_task(asked(service, given, SequenceFlags(2, start=True)))
        await turns(2)
        with pytest.raises(KServeError, match="all 1 slots of plant are taken"):
            await asked(service, given, SequenceFlags(3, start=True))
        put_down.set()
        await following

    asyncio.run(requests())
