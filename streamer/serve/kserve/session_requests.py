"""Requests on one session of the registry: each brings rows and waits for the outputs of exactly these rows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamer.refusals import BadInput
from streamer.serve.kserve.errors import KServeError

if TYPE_CHECKING:
    from streamer.streams.session import Session

__all__ = ["SessionRequests", "joined"]

Arrays = dict[str, NDArray[Any]]


@dataclass(slots=True)
class _Request:
    """A waiting request whose rows up to ``end`` were fed."""

    end: int
    answer: asyncio.Future[list[Arrays]]
    parts: list[Arrays] = field(default_factory=list)


class SessionRequests:
    """For the event loop, except :meth:`sink`, which lanes call. ``put``: passes calls from a lane to the loop, in
    order.

    ``start``: creates or restores the session for the first request; others wait. ``lost``: called with code and reason
    when the daemon ends the session. ``answered``: number of rows whose outputs were returned. ``doubtful``: the
    session was restored from a snapshot that may be older than its client's last answer.
    """

    def __init__(
        self,
        put: Callable[[Callable[[], None]], None],
        start: Callable[[SessionRequests], Awaitable[Session]],
        lost: Callable[[str, str], None] = lambda code, why: None,
    ) -> None:
        self.session: Session | None = None
        self.answered = 0
        self.doubtful = False
        self._put, self._start, self._lost = put, start, lost
        self._waiting: deque[_Request] = deque()
        self._turn, self._progress = asyncio.Lock(), asyncio.Event()
        self._closed: KServeError | None = None

    async def run(self, rows: NDArray[Any], before: Callable[[int], None] = lambda position: None) -> list[Arrays]:
        """Outputs of each chunk of ``rows``, after those of earlier requests.

        ``before(position)`` is called just before the rows are taken, with the number of rows taken so far; it may
        raise. Raises :class:`KServeError`, and what ``start`` raises.
        """
        async with self._turn:
            self._check()
            if self.session is None:
                self.session = await self._start(self)
            session = self.session
            while session.full:  # of rows of earlier requests
                self._progress.clear()
                await self._progress.wait()
                self._check()
            before(session.received)
            if len(rows) == 0:
                return []
            try:
                session.feed_rows(rows)
            except BadInput:  # the rows are valid: the session has failed, and its error is still on its way
                text = "the sequence ended while this request waited: nothing was taken"
                raise KServeError(503, text, 1.0) from None
            waiting = _Request(session.received, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
        return await waiting.answer

    def sink(self, events: list[dict[str, Any]]) -> None:
        """The session's sink of events."""
        self._put(partial(self._deliver, events))

    def close(self, error: KServeError) -> None:
        """Fail waiting and future requests with the error."""
        self._closed = error
        self._progress.set()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():
                waiting.answer.set_exception(error)

    def _check(self) -> None:
        if self._closed is not None:
            raise self._closed

    def _deliver(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["type"] == "outputs":
                self._give(event)
            elif event["type"] == "error":
                status = 500 if event["code"] == "model_failed" else 503
                self.close(KServeError(status, event["message"]))
                self._lost(event["code"], event["message"])

    def _give(self, event: dict[str, Any]) -> None:
        self._progress.set()
        if not self._waiting:
            return
        waiting = self._waiting[0]
        waiting.parts.append(event["outputs"])
        if event["end"] >= waiting.end:
            self._waiting.popleft()
            self.answered = waiting.end
            if not waiting.answer.done():  # its client may be gone
                waiting.answer.set_result(waiting.parts)


def joined(parts: list[Arrays], name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """One output of a request's chunks, concatenated, with a batch axis. ``shape``: of one chunk."""
    if len(parts) == 1:
        return parts[0][name].reshape(1, *shape)
    if not parts:
        return np.zeros((1, 0, *shape[1:]), dtype)
    return np.concatenate([np.atleast_1d(part[name]) for part in parts])[None]
