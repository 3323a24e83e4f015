"""Begins sequences, resumes them after a broken connection or a restart, and ends them. Runs on the event loop;
restoring a sequence from a snapshot, which waits for the disk, runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from streamer.refusals import Refused
from streamer.serve.disk_threads import disk_thread
from streamer.serve.kserve.caller import SECRET_HEADER, Caller, connected
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.lasting import (
    MAX_SECRETS,
    Positions,
    add_secrets,
    lasting_secret,
    other_secrets,
)
from streamer.serve.kserve.messages import SequenceFlags
from streamer.serve.kserve.sequences import Owned, SequenceTable, SeveralLeftError
from streamer.serve.kserve.session_requests import SessionRequests
from streamer.serve.kserve.slots import Slots

if TYPE_CHECKING:
    from streamer.streams.session import Session

__all__ = ["Sequences", "check_position"]

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
#: Most sequences of one id and address that are looked up on the disk; more than one are ambiguous anyway.
LEFT = 4


class _Order:
    """Keeps requests for one id in order while they wait for the lookup of its owner."""

    def __init__(self) -> None:
        self.lock, self.waiting = asyncio.Lock(), 0


class Sequences:
    """``directory``: the daemon's state directory. ``by_address``: a sequence whose connection broke may be resumed
    from the same address.
    """

    def __init__(self, slots: Slots, directory: Path, *, by_address: bool) -> None:
        self._slots, self._by_address = slots, by_address
        self._file = directory / "kserve.secret"
        self._secret = lasting_secret(self._file)
        self._table: SequenceTable[SessionRequests] = SequenceTable(self._secret, others=other_secrets(self._file))
        self._adding = threading.Lock()
        self._positions = Positions(directory / "kserve.json")
        self._streams: set[int] = set()
        self._stream_number = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._orders: dict[tuple[str, int | str, str], _Order] = {}

    @contextmanager
    def stream(self) -> Iterator[int]:
        """A number for one ``ModelStreamInfer`` call, which owns the sequences that it starts as long as it lasts."""
        self._stream_number += 1
        number = self._stream_number
        self._streams.add(number)
        try:
            yield number
        finally:
            self._streams.discard(number)

    async def find(
        self, model: str, flags: SequenceFlags, conditions: Arrays, caller: Caller, patient: bool
    ) -> Owned[SessionRequests]:
        """The caller's sequence, a new one if the request starts it. Raises :class:`KServeError`."""
        place = (model, flags.id, caller.scope)
        if place not in self._orders and (flags.start or self._table.own(model, flags.id, caller) is not None):
            return await self._find(model, flags, conditions, caller, patient)  # without waiting
        order = self._orders.setdefault(place, _Order())
        order.waiting += 1
        try:
            async with order.lock:
                return await self._find(model, flags, conditions, caller, patient)
        finally:
            order.waiting -= 1
            if not order.waiting:
                del self._orders[place]

    async def _find(
        self, model: str, flags: SequenceFlags, conditions: Arrays, caller: Caller, patient: bool
    ) -> Owned[SessionRequests]:
        id = flags.id
        owned = self._table.own(model, id, caller)
        if flags.start:
            if owned is not None:
                log.info("a sequence starts again before its end", extra={"model": model})
                self.end(owned, KServeError(400, f"sequence {_shown(id)} was started again"))
            owned = self._table.enter(model, id, caller)
            key = owned.key
            self._positions.take(key)  # it belongs to another sequence, of the last run
            self._enter(owned, lambda mine: self._slots.open(model, key, conditions, mine.sink, patient))
            return owned
        if owned is None:
            owned = await self._left(model, id, caller)
        if owned.sequence is None:
            self._table.remove(owned)
            raise KServeError(400, f"sequence {_shown(id)} is over: {owned.gone}; {_must_start(model, id)}")
        return owned

    def end(self, owned: Owned[SessionRequests], error: KServeError | None = None) -> None:
        """End a sequence. Its id is free at once, its slot when the lane is done with its last rows."""
        running, owned.sequence = owned.sequence, None
        self._table.remove(owned)
        self._table.free(owned.key)
        if running is not None:
            running.close(error or KServeError(400, f"sequence {_shown(owned.id)} has ended"))
            if running.session is not None:
                self._slots.release(running.session)

    async def save_positions(self) -> None:
        """Save the answered position of each sequence, after the registry has drained. Waits for the disk."""
        answered = {o.key: o.sequence.answered for o in self._table.all() if o.sequence is not None}
        await asyncio.to_thread(self._positions.save, answered)

    # -- from one daemon to another ------------------------------------------------------------------------------------

    @property
    def secrets(self) -> list[bytes]:
        """The secrets that another daemon needs to find the sequences of this one."""
        return [self._secret, *self._table.others_secrets]

    def certain(self, key: str, received: int) -> bool:
        """Whether the client of a sequence has, or will get, the answers to all ``received`` rows. From any thread."""
        owned = self._table.by_key(key)
        running = None if owned is None else owned.sequence
        if running is not None and running.session is not None:
            return not running.doubtful
        return self._positions.look(key) == received

    def arrived(self, key: str, received: int | None, secrets: Sequence[bytes]) -> None:
        """Note that a sequence of another daemon is on the disk. ``received``: rows that were answered; ``None``:
        unknown. Waits for the disk."""
        with self._adding:
            mine = self._table.others_secrets
            if fresh := [each for each in secrets if each not in (self._secret, *mine)]:
                self._table.others_secrets = [*fresh, *mine][:MAX_SECRETS]
                add_secrets(self._file, self._secret, self._table.others_secrets)
        self._positions.put(key, received)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _enter(self, owned: Owned[SessionRequests], start: Callable[[SessionRequests], Any]) -> None:
        """Enter a sequence for its owner; its first request starts the session."""

        async def guarded(running: SessionRequests) -> Session:
            try:
                session: Session = await start(running)
                return session
            except BaseException as error:
                if owned.sequence is running:
                    why = getattr(error, "message", "its first request was given up")
                    self.end(owned, KServeError(503, f"sequence {_shown(owned.id)} could not be started: {why}"))
                raise

        owned.sequence = SessionRequests(self._slots.put, guarded, lambda code, why: self._lost(owned, code, why))

    async def _left(self, model: str, id: int | str, caller: Caller) -> Owned[SessionRequests]:
        """A sequence left over from a broken connection or from the daemon's last run."""
        if not caller.secret and not self._by_address:
            raise KServeError(400, _must_start(model, id))
        others = self._table.others(model, id, caller)
        if not others:
            owned = self._table.enter(model, id, caller)
            self._enter(owned, lambda running: self._wake(owned, running))
            return owned
        asked = {other.caller for other in others if other.caller.stream not in self._streams}
        alive = await asyncio.to_thread(connected, [each for each in asked if not each.stream])
        try:
            found = self._table.take_over(model, id, caller, asked - alive)
        except SeveralLeftError:
            raise KServeError(400, _ambiguous(model, id)) from None
        if found is None:
            raise KServeError(400, _must_start(model, id))
        return found

    async def _wake(self, owned: Owned[SessionRequests], running: SessionRequests) -> Session:
        """Restore a session from a snapshot, or take it from the registry if the daemon's start restored it."""
        keys = self._table.keys(owned, LEFT)

        def attach() -> tuple[Session, int | None] | None:
            registry = self._slots.registry
            left = [key for key in keys if registry.look(key) is not None]
            if len(left) > 1:
                raise KServeError(400, _ambiguous(owned.model, owned.id))
            if not left:
                return None
            session = registry.attach(left[0], running.sink, after_seq=None)
            session.keep_no_events()
            return session, self._positions.take(left[0])

        found = await disk_thread(attach)
        if found is None:
            raise KServeError(400, _must_start(owned.model, owned.id))
        session, answered = found
        self._table.rename(owned, session.id)
        running.answered = session.received
        # The daemon may have crashed after answers for rows that no snapshot has.
        running.doubtful = answered != session.received
        return session

    def _lost(self, owned: Owned[SessionRequests], code: str, message: str) -> None:
        """The daemon ended the sequence, or the sequence moved: then each request for it gets the new address."""
        if owned.sequence is None:
            return
        if code == "moved":
            self.end(owned)
            return
        self._table.lose(owned, f"it was evicted, {message}" if code == "idle_timeout" else message)
        task = asyncio.create_task(self._delete(owned.model, owned.key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _delete(self, model: str, key: str) -> None:
        """Delete an evicted sequence's snapshot: its client, unlike those of other protocols, has to start again."""
        try:
            await disk_thread(lambda: self._slots.registry.delete(key))
        except Refused as error:
            log.warning("an evicted sequence stays on the disk", extra={"stream": key, "reason": error.message})
        finally:
            self._table.free(key)
            self._slots.freed(model)


def check_position(flags: SequenceFlags, running: SessionRequests, position: int) -> None:
    """Check the client's position against ``position``, the rows that the sequence has taken. Raises
    :class:`KServeError`."""
    who = f"sequence {_shown(flags.id)}"
    if flags.position is not None and flags.position != position:
        raise KServeError(409, f"{who} is at row {position}, not at {flags.position}: nothing was taken")
    if running.doubtful and flags.position is None:
        text = (
            f"{who} came back from a snapshot at row {position}, and later answers may be lost: send the rows again"
            f" from there with the parameter sequence_position = {position}, or start the sequence again"
        )
        raise KServeError(409, text)
    running.doubtful = False


def _must_start(model: str, id: int | str) -> str:
    return (
        f"inference request for sequence {_shown(id)} to model '{model}' must specify the START flag on the first"
        " request of the sequence (a sequence belongs to the connection that started it, or with the header"
        f" {SECRET_HEADER} to the client with the same secret)"
    )


def _ambiguous(model: str, id: int | str) -> str:
    return f"several sequences {_shown(id)} of your address lost their connections: {_must_start(model, id)}"


def _shown(id: int | str) -> str:
    return repr(id[:60]) if isinstance(id, str) else str(id)
