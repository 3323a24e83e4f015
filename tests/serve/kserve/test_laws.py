"""The chunk law and the company law on the road of KServe, in one process: any requests, any neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.serve.kserve.caller import Caller
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.messages import InferRequest, SequenceFlags
from streamer.serve.kserve.service import InferenceService
from streamer.serve.kserve.tensors import NamedTensor
from streamer.serve.outbox import Outbox
from streamer.streams.registry import Registry
from tests.engine.support import count, running, slots_used
from tests.serve.kserve.plant import TRAP, plant, rows, truth

CHUNKS = 12
CALLER = Caller("127.0.0.1", 1)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("laws")
    with running(plant(folder), folder=folder, store=True, buffer_bytes=1) as registry:
        yield registry


def serving(registry: Registry) -> InferenceService:
    put = Outbox(asyncio.get_running_loop()).put
    return InferenceService(registry, registry.settings, put, lambda: None)


async def asked(service: InferenceService, given: Any, flags: SequenceFlags | None = None, **more: Any) -> Any:
    request = InferRequest((NamedTensor("x", given[None]),), sequence=flags, **more)
    answer = await service.infer("plant", "", request, CALLER)
    return {tensor.name: tensor.array[0] for tensor in answer.outputs}["y"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sets(st.integers(1, CHUNKS - 1)), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_any_requests_beside_any_neighbours(registry: Registry, plans: list[tuple[set[int], bool, bool]]) -> None:
    """A plan: where a sequence is cut into requests, whether they are sent without waiting, whether it is poisoned."""

    async def sequence(service: InferenceService, id: int, cuts: set[int], ahead: bool, poisoned: bool) -> None:
        whole = rows(id, 2 * CHUNKS)
        if poisoned:
            whole[-1, 1] = TRAP
        pieces = np.split(whole, [2 * cut for cut in sorted(cuts)])
        last = len(pieces) - 1
        calls = (asked(service, piece, SequenceFlags(id, at == 0, at == last)) for at, piece in enumerate(pieces))
        if ahead:
            found = await asyncio.gather(*calls, return_exceptions=True)
        else:
            found = [(await asyncio.gather(call, return_exceptions=True))[0] for call in calls]
        if poisoned:
            error = found.pop()
            assert isinstance(error, KServeError)
            assert error.status == 500
            whole = whole[: 2 * CHUNKS - len(pieces[-1])]
        if found:
            np.testing.assert_array_equal(np.concatenate(found), truth(whole))

    async def together() -> None:
        service = serving(registry)
        await asyncio.gather(*(sequence(service, id, *plan) for id, plan in enumerate(plans, 1)))

    asyncio.run(together())
    assert slots_used(registry) == 0


def test_requests_alone_leave_nothing_behind(registry: Registry) -> None:
    assert registry.store is not None

    async def alone() -> None:
        service = serving(registry)
        given = [rows(seed, 4) for seed in range(50)]
        found = await asyncio.gather(*(asked(service, each) for each in given))
        for each, answer in zip(given, found, strict=True):
            np.testing.assert_array_equal(answer, truth(each))

    saved = count(registry, "snapshots_total")
    asyncio.run(alone())
    registry.checkpoint()
    assert slots_used(registry) == 0
    assert count(registry, "snapshots_total") == saved
    assert list(registry.store.live()) == []


def test_a_request_that_is_given_up_leaves_its_sequence_whole(registry: Registry) -> None:
    """Cancelled while it waits for its turn nothing of it is taken; after that all of it."""

    async def given_up() -> None:
        service, given = serving(registry), rows(1, 12)
        position = 0
        first = asyncio.create_task(asked(service, given[:4], SequenceFlags(1, start=True)))
        await asyncio.sleep(0)
        second = asyncio.create_task(asked(service, given[4:8], SequenceFlags(1)))
        await asyncio.sleep(0)
        second.cancel()
        np.testing.assert_array_equal(await first, truth(given)[:4])
        await asyncio.gather(second, return_exceptions=True)
        with pytest.raises(KServeError, match=r"is at row (4|8), not at 999") as caught:
            await asked(service, given[:2], SequenceFlags(1, position=999))
        position = int(caught.value.message.split("row ")[1].split(",")[0])
        answer = await asked(service, given[position:], SequenceFlags(1, end=True))
        np.testing.assert_array_equal(answer, truth(given)[position:])

    asyncio.run(given_up())
    assert slots_used(registry) == 0


def test_a_snapshot_of_a_sequence_holds_no_events(registry: Registry, tmp_path: Path) -> None:
    assert registry.store is not None

    async def kept() -> None:
        service = serving(registry)
        for at in range(30):
            await asked(service, rows(at, 2), SequenceFlags(5, start=at == 0))
        await asyncio.to_thread(registry.checkpoint)
        ((_, short),) = registry.store.live()  # type: ignore[union-attr]
        for at in range(30):
            await asked(service, rows(at, 2), SequenceFlags(5))
        await asyncio.to_thread(registry.checkpoint)
        ((_, long),) = registry.store.live()  # type: ignore[union-attr]
        assert abs(len(long) - len(short)) < 100
        await asked(service, rows(1, 2), SequenceFlags(5, end=True))

    asyncio.run(kept())
    registry.keeper.settle()
    assert list(registry.store.live()) == []
