"""Ownership of sequences. Clients choose ids, so ids are separate for each client: 42 of one is not 42 of another.

A sequence belongs to the client that started it. The client is identified

- by the secret in the header ``streamer-client``, on any connection;
- else by the connection (or gRPC stream) on which the sequence was last used. After that is closed, a request from the
  same address resumes the sequence, if it is the only candidate.

No other client can use the sequence or learn that it exists. Everything here runs on the event loop.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from streamer.names import stream_id
from streamer.serve.kserve.caller import Caller

__all__ = ["Owned", "SequenceTable", "SeveralLeftError"]

S = TypeVar("S")


class SeveralLeftError(LookupError):
    """Several sequences of closed connections have this id."""


@dataclass(slots=True, eq=False)
class Owned(Generic[S]):
    """A sequence and its owner. ``sequence`` is ``None`` after it was lost, ``gone`` is the reason; kept until the
    error was sent to its client."""

    model: str
    id: int | str
    caller: Caller
    key: str
    sequence: S | None = None
    gone: str = ""


class SequenceTable(Generic[S]):
    """All sequences by owner. ``secret``: the daemon's, kept across restarts, which makes sequences' keys unguessable.
    ``others``: secrets of the daemons whose sequences came here. ``max_gone``: most lost sequences that are remembered
    for their clients; the oldest are forgotten first.
    """

    def __init__(self, secret: bytes, max_gone: int = 4096, others: Sequence[bytes] = ()) -> None:
        self._secret, self.others_secrets = secret, list(others)
        self._by_key: dict[str, Owned[S]] = {}
        self._owned: dict[tuple[str, int | str, str], list[Owned[S]]] = {}  # by model, id and scope
        self._gone: OrderedDict[int, Owned[S]] = OrderedDict()
        self._keys: set[str] = set()
        self._max_gone = max_gone

    def all(self) -> list[Owned[S]]:
        return [owned for group in self._owned.values() for owned in group]

    def by_key(self, key: str) -> Owned[S] | None:
        """The sequence with this key. From any thread."""
        return self._by_key.get(key)

    def own(self, model: str, id: int | str, caller: Caller) -> Owned[S] | None:
        """The caller's own sequence: by its secret, its stream or its connection."""
        group = self._owned.get((model, id, caller.scope), ())
        return next((owned for owned in group if _same(owned.caller, caller)), None)

    def others(self, model: str, id: int | str, caller: Caller) -> list[Owned[S]]:
        """The sequences of other connections from the same address."""
        return [o for o in self._owned.get((model, id, caller.scope), ()) if not _same(o.caller, caller)]

    def take_over(self, model: str, id: int | str, caller: Caller, dead: Collection[Caller]) -> Owned[S] | None:
        """Give the caller the one of :meth:`others` whose connection is among the ``dead``. Raises
        :class:`SeveralLeftError`."""
        left = [owned for owned in self.others(model, id, caller) if owned.caller in dead]
        if len(left) > 1:
            raise SeveralLeftError(str(len(left)))
        for owned in left:
            owned.caller = caller
            return owned
        return None

    def enter(self, model: str, id: int | str, caller: Caller) -> Owned[S]:
        """Enter a new sequence, with a unique key among all streams."""
        free = (self.key(model, id, caller, number) for number in itertools.count())
        key = next(key for key in free if key not in self._keys)
        self._keys.add(key)
        owned: Owned[S] = Owned(model, id, caller, key)
        self._by_key[key] = owned
        self._owned.setdefault((model, id, caller.scope), []).append(owned)
        return owned

    def rename(self, owned: Owned[S], key: str) -> None:
        """Give a sequence the key that it has had since the last run."""
        self._keys.discard(owned.key)
        self._by_key.pop(owned.key, None)
        self._keys.add(key)
        self._by_key[key] = owned
        owned.key = key

    def remove(self, owned: Owned[S]) -> None:
        """Free the sequence's id; its key is free only after :meth:`free`, when the old session is deleted."""
        self._gone.pop(id(owned), None)
        if self._by_key.get(owned.key) is owned:
            del self._by_key[owned.key]
        place = (owned.model, owned.id, owned.caller.scope)
        group = self._owned.get(place, [])
        group[:] = [other for other in group if other is not owned]
        if not group:
            self._owned.pop(place, None)

    def keys(self, owned: Owned[S], count: int) -> list[str]:
        """The keys that the sequence may have had in the daemon's last run, or on one that it came from: the first
        ``count`` of each, without those in use."""
        identity = owned.model, owned.id, owned.caller
        secrets = (self._secret, *self.others_secrets)
        found = (self.key(*identity, number, secret) for secret in secrets for number in range(count))
        return [key for key in found if key == owned.key or key not in self._keys]

    def free(self, key: str) -> None:
        self._keys.discard(key)

    def key(self, model: str, id: int | str, caller: Caller, number: int = 0, secret: bytes | None = None) -> str:
        """A sequence's key among all streams, at most 200 characters behind its owner. ``number`` counts those with
        this id and scope."""
        named = f"{caller.scope} {number} {'text' if isinstance(id, str) else 'integer'} {id}"
        digest = hmac.new(secret or self._secret, named.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
        return stream_id(caller.owner, f"kserve/{model}/{digest[:40]}")

    def lose(self, owned: Owned[S], why: str) -> None:
        """The sequence was lost on the server; the next request for it gets the reason."""
        owned.sequence, owned.gone = None, why
        self._gone[id(owned)] = owned
        if len(self._gone) > self._max_gone:
            self.remove(next(iter(self._gone.values())))


def _same(owner: Caller, caller: Caller) -> bool:
    """Whether two callers of one scope are the same client. A connection's streams may use its unary sequences."""
    if caller.secret or owner == caller:
        return True
    return (owner.address, owner.port, owner.stream) == (caller.address, caller.port, 0)
