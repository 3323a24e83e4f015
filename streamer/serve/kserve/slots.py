"""Slots for sequences: acquiring, waiting, releasing. Runs on the event loop."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from streamer.names import stream_id
from streamer.refusals import Refused
from streamer.serve.disk_threads import disk_thread

if TYPE_CHECKING:
    from streamer.streams.registry import Registry
    from streamer.streams.session import Session, Sink

__all__ = ["Slots"]

#: Seconds between checks for slots that streams of other protocols released.
RETRY_SECONDS = 0.25
#: Seconds that a request without a timeout waits at most for a slot that is being released: the duration of a batch.
RELEASE_SECONDS = 5.0


class Slots:
    """Opens sessions of the registry; at most ``max_backlog`` requests wait for one.

    ``put``: passes calls from a lane to the event loop, in order.
    """

    def __init__(self, registry: Registry, put: Callable[[Callable[[], None]], None], max_backlog: int) -> None:
        self.registry, self.put = registry, put
        self._max_backlog = max_backlog
        self._backlog: dict[str, deque[asyncio.Future[None]]] = {}  # by model
        self._releasing: Counter[str] = Counter()  # slots whose last chunk is still with its lane
        self._expecting: Counter[str] = Counter()  # requests that wait for one of those

    async def open(
        self,
        model: str,
        key: str | None,
        conditions: Mapping[str, NDArray[Any]],
        sink: Sink,
        patient: bool,
        owner: str = "",
    ) -> Session:
        """Open a session with zero state. Without a ``key`` it is not checkpointed; it counts as one of ``owner``'s.
        ``patient``: wait for a slot. Raises :class:`Refused`."""
        until = asyncio.get_running_loop().time() + RELEASE_SECONDS
        while True:
            try:
                session = self.registry.open(
                    model=model,
                    sink=sink,
                    stream=stream_id(owner, uuid.uuid4().hex) if key is None else key,
                    options={"tensors": True},
                    conditions=conditions,
                    lasting=key is not None,
                )
                session.keep_no_events()
                return session
            except Refused as error:
                if error.reason == "duplicate" and key is not None:  # left over from the last run, not resumed
                    await disk_thread(partial(self.registry.delete, key))
                    continue
                if error.reason != "capacity":
                    raise
                if self._expecting[model] < self._releasing[model] and asyncio.get_running_loop().time() < until:
                    await self._released_slot(model)
                    continue
                if await disk_thread(partial(self.registry.keeper.make_room, model)):
                    continue
                if not patient:
                    raise
                if (waiting := sum(map(len, self._backlog.values()))) >= self._max_backlog:
                    text = f"{error.message}, and {waiting} requests wait for one (kserve_max_backlog)"
                    raise Refused("capacity", text, error.retry_after) from None
            await self._free_slot(model)

    def release(self, session: Session) -> None:
        """Release a session. Never waits: its lane may still be busy with it."""
        self._releasing[session.model] += 1
        self.registry.release(session, partial(self.put, partial(self._released, session.model)))

    def freed(self, model: str) -> None:
        """There may be a free slot: the longest waiting request tries again."""
        backlog = self._backlog.get(model)
        while backlog:
            waiting = backlog.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    def _released(self, model: str) -> None:
        self._releasing[model] -= 1
        self.freed(model)

    async def _released_slot(self, model: str) -> None:
        self._expecting[model] += 1
        try:
            await self._free_slot(model)
        finally:
            self._expecting[model] -= 1

    async def _free_slot(self, model: str) -> None:
        waiting = asyncio.get_running_loop().create_future()
        backlog = self._backlog.setdefault(model, deque())
        backlog.append(waiting)
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await waiting
        except TimeoutError:
            pass
        finally:
            with suppress(ValueError):
                backlog.remove(waiting)
